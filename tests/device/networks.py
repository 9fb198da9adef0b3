# SPDX-License-Identifier: Apache-2.0
"""Small networks made of element-wise kernels, with seeded inputs, for the tests of the device."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reefd import _engine

Array = NDArray[np.float32]
ALIGNMENT = 64


class Builder:
    """Builds a ModelSpec tensor by tensor; every arena storage gets a place of its own."""

    def __init__(self, name: str, arena_bytes: int = 1 << 22) -> None:
        self.spec = _engine.ModelSpec(name, arena_bytes)
        self.at = 0
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.kernels = 0

    def input(self, shape: Sequence[int]) -> int:
        self.inputs.append(self.spec.add_storage(f"in{len(self.inputs)}", "input", "float32", shape))
        return self.inputs[-1]

    def output(self, shape: Sequence[int]) -> int:
        self.outputs.append(self.spec.add_storage(f"out{len(self.outputs)}", "output", "float32", shape))
        return self.outputs[-1]

    def weight(self, data: Array) -> int:
        return self.spec.add_storage("w", "weight", "float32", data.shape, data=np.ascontiguousarray(data))

    def arena(self, shape: Sequence[int]) -> int:
        index = self.spec.add_storage(f"t{self.at}", "arena", "float32", shape, offset=self.at)
        self.at += -(-4 * int(np.prod(shape)) // ALIGNMENT) * ALIGNMENT
        return index

    def kernel(self, op: str, reads: Sequence[int], write: int, **attributes: object) -> None:
        access = ["read"] * len(reads) + ["write"]
        self.spec.add_kernel(f"k{self.kernels}", op, [*reads, write], access, attributes)  # type: ignore[arg-type]
        self.kernels += 1

    def finish(self) -> _engine.ModelSpec:
        self.spec.set_inputs(self.inputs)
        self.spec.set_outputs(self.outputs)
        return self.spec


def chain(kernels: int, elements: int, seed: int = 1) -> _engine.ModelSpec:
    """in0 -> kernels element-wise kernels -> out0, whose result depends on each of them running exactly once."""
    generator = np.random.default_rng(seed)
    build = Builder(f"chain{kernels}")
    before = build.input([elements])
    buffers = [build.arena([elements]) for _ in range(2)]
    for index in range(kernels):
        after = build.output([elements]) if index == kernels - 1 else buffers[index % 2]
        if index % 3 == 2:
            build.kernel("unary", [before], after, activation="tanh")
        else:
            weight = build.weight(generator.uniform(0.5, 1.5, elements).astype(np.float32))
            build.kernel("binary", [before, weight], after, function="mul" if index % 3 else "add")
        before = after
    return build.finish()
