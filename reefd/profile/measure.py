# SPDX-License-Identifier: Apache-2.0
"""The times of a resource's kernels and blocks on the CPU device, as a profile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

from reefd import feeds
from reefd._engine import CpuDevice
from reefd.profile import machine, padding
from reefd.resource import Resource
from reefd.resource.load import model_spec
from reefd.resource.profile import VERSION, KernelProfile, Profile

DEVICE = "cpu"
BLOCK_ROUNDS = 5
MOST_UNITS = 8  # up to here every number of compute units is measured, beyond it steps of a quarter
_MIN_ROUNDS, _MAX_ROUNDS = 5, 200

Progress = Callable[[str, float], None]  # what is measured, and how much of all was


def counts(total: int) -> list[int]:
    """The numbers of compute units to measure, ascending, up to all of them."""
    found = list(range(1, min(total, MOST_UNITS) + 1))
    while found[-1] < total:
        found.append(min(total, found[-1] + found[-1] // 4))
    return found


def kernel_times(
    resource: Resource, inputs: list[np.ndarray], *, workers: int, seconds: float
) -> tuple[np.ndarray, CpuDevice]:
    """The median time of each kernel instance with so many workers, nanoseconds; and the device it was measured on."""
    device = CpuDevice(workers=workers)
    model = device.load(model_spec(resource))
    outputs = list(feeds.outputs(resource).values())
    begin = time.monotonic()
    device.kernel_times(model, inputs, outputs, rounds=2)  # the first rounds find cold caches and sleeping workers
    once = max((time.monotonic() - begin) / 3, 1e-6)
    rounds = int(min(_MAX_ROUNDS, max(_MIN_ROUNDS, seconds / once)))
    times = np.array(device.kernel_times(model, inputs, outputs, rounds=rounds), np.float64)
    return np.median(times.reshape(-1, len(resource.model.kernels)), axis=0), device


def profile(
    resource: Resource,
    *,
    workers: int = 0,
    bound: float = 0.02,
    seconds: float = 1.0,
    seed: int = 1,
    progress: Progress = lambda what, share: None,
) -> Profile:
    """Measures for about `seconds` with each number of compute units. `workers` 0: one for each CPU; `bound`: the share
    of its time that the model may lose to padding. ModelError, EngineError: it cannot be loaded."""
    inputs = feeds.random(resource, seed)
    total = workers or len(os.sched_getaffinity(0))
    units = counts(total)
    columns = []
    for step, count in enumerate(units):
        progress(f"kernels on {count} of {total} compute units", step / (len(units) + 1))
        times, device = kernel_times(resource, inputs, workers=count, seconds=seconds)
        columns.append(times)
    progress("blocks and their check points", len(units) / (len(units) + 1))
    model = device.load(model_spec(resource))
    blocks = device.block_times(model, inputs, list(feeds.outputs(resource).values()), rounds=BLOCK_ROUNDS)
    times = np.array(columns).T
    kernels = [
        KernelProfile(kernel.name, count, [round(t) for t in row], *longest)
        for kernel, count, row, longest in zip(resource.model.kernels, model.blocks, times, blocks, strict=True)
    ]
    plan = padding.plan(times, units, bound)
    return Profile(VERSION, DEVICE, resource.digest, machine.here(device.info), units, kernels, plan)
