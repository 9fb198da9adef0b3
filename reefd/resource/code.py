# SPDX-License-Identifier: Apache-2.0
"""`code.<processor>.json`: what the code objects beside it hold, so that nobody has to read or plan them to know.

The launches in order, what the compiler noted of every kernel, and the tiles that were chosen for it: with these the
same kernels are planned again when the resource is loaded, whatever a later release would choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from reefd.resource.errors import ResourceError

if TYPE_CHECKING:
    import numpy as np

VERSION = 2
MAX_FILE = 64 << 20  # bytes

Count = Annotated[int, Meta(ge=0, le=1 << 32)]


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one entry point, as the compiler noted it. Memory in bytes."""

    vector_registers: Count  # of a thread
    scalar_registers: Count  # of a wave; 0 on NVIDIA
    shared_bytes: Count  # of a block: LDS, shared memory
    scratch_bytes: Count  # of a thread: the stack, and what did not fit into registers
    blocks: Count  # that a compute unit holds at once; 0: it cannot be launched
    occupancy: Annotated[float, Meta(ge=0, le=1)]  # of the threads that a compute unit has room for


class KernelCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel of the code, in its two forms."""

    name: str
    plain: Facts
    preemptible: Facts


class LaunchCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One launch: which kernel, and whose work it does."""

    operation: str  # the kernel of the schedule; empty: the transfer of the outputs
    kernel: str
    blocks: Count
    threads: Count


class CodeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    processor: str
    sources: str  # SHA-256 of the text that was compiled, without comments: other kernels or another gate make another
    tuned_on: str  # the device on which the tiles were measured for this model; empty: the compiler's choice
    tiles: list[list[Any]]  # a shape's fields, then its tile: see reefd.gpu.known_tiles
    launches: list[LaunchCode]
    kernels: list[KernelCode]


class _Version(msgspec.Struct):
    version: int


class Code(NamedTuple):
    """What a resource holds for one processor: code objects by the names of the kernels in each, and their file."""

    objects: Mapping[str, np.ndarray]
    file: CodeFile


def parse(path: Path, content: bytes | memoryview) -> CodeFile:
    """ResourceError: damaged, or of another version."""
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version != VERSION:
            raise ResourceError(path, f"version {version}: this reefd reads version {VERSION}; compile it again")
        return msgspec.json.decode(content, type=CodeFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResourceError(path, f"{error}; compile it again") from None
