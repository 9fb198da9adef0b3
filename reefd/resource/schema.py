# SPDX-License-Identifier: Apache-2.0
"""model.json as structs. A superset of the schema of REEF's model files, whose keys keep their meaning.

`storage` lists every tensor: weights, inputs, outputs, and what lies in the activation arena. `size` counts elements.
`kernels` is the schedule, in order; `args` and `access` say which storages an instance reads and writes, `op` and
`attributes` which kernel it is (kernels/README.md). A storage with a `base` is a view: the same bytes in another shape.
"""

from typing import Literal

import msgspec

VERSION = 1
ALIGNMENT = 64  # of arena offsets, in bytes
MAX_RANK = 8

Kind = Literal["input", "output", "arena", "weight"]
Access = Literal["read", "write", "read_write"]
Precision = Literal["float32", "float16"]
Attribute = int | float | str | list[int | float]

ITEM_SIZES = {
    "float32": 4, "float16": 2, "float64": 8, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4,
    "uint16": 2, "uint8": 1, "bool": 1,
}  # fmt: skip


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    size: int  # elements
    stype: str
    kind: Kind = "arena"
    shape: list[int] = []
    offset: int = 0  # bytes: in the arena, or in the base
    base: int = -1

    @property
    def bytes(self) -> int:
        return self.size * ITEM_SIZES[self.stype]


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    args: list[int]
    op: str = ""
    access: list[Access] = []
    attributes: dict[str, Attribute] = {}
    nodes: list[str] = []  # the ONNX nodes whose work it does
    launch_params: list[int] = []  # a GPU's grid and block; empty where the device chooses


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the resource was compiled from, so that a stale one can be told from a fresh one."""

    file: str
    sha256: str
    options: str  # the options that change the result, in one line
    compiler: str


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    storage: list[Storage]
    kernels: list[Kernel]
    inputs: list[int]
    outputs: list[int]
    arena_bytes: int
    live_bytes: int = 0  # what is alive at once at the worst time: no arena for this schedule can be smaller
    precision: Precision = "float32"  # in which the weights are stored, and a GPU keeps and multiplies activations
    version: int = 0
    source: Source | None = None
    args: list[int] = []  # REEF's: storages that come with the model
    shared_memory: dict[str, int] = {}  # REEF's: bytes for each GPU kernel
