# SPDX-License-Identifier: Apache-2.0
"""One kernel with its shapes fixed: the constants of its source, and how it is launched."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from reefd.resource.schema import ITEM_SIZES

Value = bool | int | float | str


class Kernel(NamedTuple):
    """A kernel instance. `constants` become static members of a struct that the family's template is given.

    A string constant is C++ text (a type, an enumerator). Two instances with the same text are one kernel: `name` is
    made from it, so that models and code objects share it.
    """

    family: str  # the C++ template: "Conv"
    header: str  # where it is: "conv.cuh"
    constants: Mapping[str, Value]
    blocks: int
    threads: int
    cluster: int
    shared: int  # bytes
    resident: int = 1  # preemptible form, NVIDIA: blocks on a compute unit that must find registers

    @property
    def text(self) -> str:
        everything = {
            **self.constants,
            "BLOCKS": self.blocks,
            "THREADS": self.threads,
            "CLUSTER": self.cluster,
            "SHARED": self.shared,
            "RESIDENT": self.resident,
        }
        return "\n".join(_member(key, everything[key]) for key in sorted(everything))

    @property
    def name(self) -> str:
        digest = hashlib.sha256(f"{self.family}\n{self.text}".encode()).hexdigest()[:16]
        return f"{self.family.lower()}_{digest}"

    @property
    def units(self) -> int:
        """How many blocks, as preemption counts them: a cluster is left or finished as one."""
        return self.blocks // self.cluster


HEADER_BYTES = 128  # at the start of every block's shared memory: the gate's words


def elements_at_once(dtype: str, *counts: int) -> int:
    """How many elements a thread takes: a 16-byte chunk where every count is a multiple of it, else one."""
    chunk = 16 // ITEM_SIZES[dtype]
    return chunk if all(count % chunk == 0 for count in counts) else 1


def _member(key: str, value: Value) -> str:
    if isinstance(value, bool):
        return f"    static constexpr bool {key} = {str(value).lower()};"
    if isinstance(value, int):
        return f"    static constexpr int {key} = {value};"
    if isinstance(value, float):
        return f"    static constexpr float {key} = {_float(value)};"
    if "::" in value:
        return f"    static constexpr {value.split('::')[0]} {key} = {value};"
    return f"    using {key} = {value};"


def _float(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"a kernel constant must be finite, not {value}")
    return f"{value!r}f" if any(c in repr(value) for c in ".e") else f"{value!r}.0f"


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
