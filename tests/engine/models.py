# SPDX-License-Identifier: Apache-2.0
"""A task of two models for tests with the CPU device: an echo, and one that takes a few milliseconds."""

from __future__ import annotations

import numpy as np

from reefd import _engine

SIZE = 64 * 1024
STEPS = 24


def steps(size: int = SIZE, kernels: int = STEPS) -> _engine.ModelSpec:
    """y = sigmoid applied `kernels` times to x."""
    spec = _engine.ModelSpec("steps", 2 * size * 4)
    x = spec.add_storage("x", "input", "float32", [size])
    y = spec.add_storage("y", "output", "float32", [size])
    arena = [spec.add_storage(f"t{i}", "arena", "float32", [size], offset=i * size * 4) for i in range(2)]
    source = x
    for i in range(kernels):
        target = y if i == kernels - 1 else arena[i % 2]
        spec.add_kernel(f"sigmoid{i}", "unary", [source, target], ["read", "write"], {"activation": "sigmoid"})
        source = target
    spec.set_inputs([x])
    spec.set_outputs([y])
    return spec


def expected(x: np.ndarray, kernels: int = STEPS) -> np.ndarray:
    value = x.astype(np.float64)
    for _ in range(kernels):
        value = 1 / (1 + np.exp(-value))
    return value


def add_task(engine: _engine.Engine, task_class: str = "be", slots: int = 4) -> int:
    model = engine.load(steps())
    spec = _engine.TaskSpec(
        name="work", task_class=task_class, models=[("echo:64", None), ("steps", model)], slots=slots, signature=0x5EED
    )
    return engine.add_task(spec)
