# SPDX-License-Identifier: Apache-2.0
"""Kernels of chosen length for `reefctl bench preempt`: real operators, with the check points they always have.

`whole` kernels have one block for each worker, so long as the kernel: `topk` over an ascending line, where every value
moves all those found before it. No network is cut like this; it shows what a check point is worth. `cut` kernels are
matrix products with as many blocks as the operator makes of them (about 40 us each), like those of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reefd._engine import CpuDevice, Model, ModelSpec

SORTED = 2048  # values that topk keeps in order
INNER, COLUMNS = 256, 512  # of a product; its rows make the length
LEAST_REQUEST_US = 2000.0  # a request is as many kernels as this takes, and one at least: a best-effort window
PROBE_ROUNDS = 3
TRIES = 3  # to find the size that takes so long


Tensor = tuple[str, str, Sequence[int]]  # kind, dtype, shape


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on a device, with its inputs and room for its outputs. `kernel_us`: how long one kernel of it takes."""

    model: Model
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    kernel_us: float


def _spec(name: str, op: str, tensors: Sequence[Tensor], count: int) -> ModelSpec:
    """`count` times the same kernel. tensors: in the order of the arguments; weights are ones."""
    spec = ModelSpec(name, 0)
    places, inputs, outputs = [], [], []
    for index, (kind, dtype, shape) in enumerate(tensors):
        data = np.ones(shape, dtype) if kind == "weight" else None
        place = spec.add_storage(f"t{index}", kind, dtype, shape, data=data)  # type: ignore[arg-type]
        places.append(place)
        if kind == "input":
            inputs.append(place)
        elif kind == "output":
            outputs.append(place)
    access = ["write" if kind == "output" else "read" for kind, _, _ in tensors]
    for index in range(count):
        spec.add_kernel(f"{op}{index}", op, places, access, {})  # type: ignore[arg-type]
    spec.set_inputs(inputs)
    spec.set_outputs(outputs)
    return spec


def _load(device: CpuDevice, name: str, op: str, tensors: Sequence[Tensor], count: int) -> Loaded:
    model = device.load(_spec(name, op, tensors, count))
    # Ascending: the worst order for topk, and as good as any for a product.
    inputs = [
        np.arange(np.prod(shape), dtype=dtype).reshape(shape) for kind, dtype, shape in tensors if kind == "input"
    ]
    outputs = [np.zeros(shape, dtype) for kind, dtype, shape in tensors if kind == "output"]
    times = device.run(model, inputs, outputs, preemptible=True, rounds=PROBE_ROUNDS)["each_ns"]
    return Loaded(model, inputs, outputs, min(times) / 1000 / count)


def whole(device: CpuDevice, kernel_us: float) -> Loaded:
    """One block for each worker."""
    workers = int(device.info["compute_units"])

    def tensors(extent: int) -> list[Tensor]:
        kept = [workers, min(extent, SORTED)]
        return [("input", "float32", [workers, extent]), ("output", "float32", kept), ("output", "int64", kept)]

    extent = 2.0 * SORTED
    for _ in range(TRIES):
        loaded = _load(device, "whole", "topk", tensors(max(2, round(extent))), _count(kernel_us))
        # n values cost n * n / 2 moves until all places are taken, then each costs as much as the last.
        moves = _moves(extent) * kernel_us / loaded.kernel_us
        extent = (2 * moves) ** 0.5 if moves < _moves(SORTED) else moves / SORTED + SORTED / 2
    return _load(device, "whole", "topk", tensors(max(2, round(extent))), _count(kernel_us))


def _moves(extent: float) -> float:
    return extent * extent / 2 if extent < SORTED else (extent - SORTED / 2) * SORTED


def cut(device: CpuDevice, kernel_us: float) -> Loaded:
    """As many blocks as the operator makes of it."""

    def tensors(rows: int) -> list[Tensor]:
        return [
            ("input", "float32", [rows, INNER]),
            ("weight", "float32", [INNER, COLUMNS]),
            ("output", "float32", [rows, COLUMNS]),
        ]

    rows = 1024.0
    for _ in range(TRIES):
        loaded = _load(device, "cut", "matmul", tensors(max(1, round(rows))), _count(kernel_us))
        rows *= kernel_us / loaded.kernel_us
    return _load(device, "cut", "matmul", tensors(max(1, round(rows))), _count(kernel_us))


def short(device: CpuDevice) -> Loaded:
    """The real-time work that comes: a few microseconds on every worker."""
    workers = int(device.info["compute_units"])
    return _load(device, "short", "topk", [
        ("input", "float32", [workers, 16]), ("output", "float32", [workers, 4]), ("output", "int64", [workers, 4])
    ], 1)  # fmt: skip


def _count(kernel_us: float) -> int:
    return max(1, round(LEAST_REQUEST_US / kernel_us))
