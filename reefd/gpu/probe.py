# SPDX-License-Identifier: Apache-2.0
"""How quickly a GPU answers and hears: measured with a program of one kernel that spins on every compute unit."""

import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reefd import _engine
from reefd.resource import Kernel as Scheduled
from reefd.resource import ModelFile, Resource, Storage
from reefd.resource.load import model_spec

from .compilers import compile_all
from .instance import Kernel
from .program import Compile, Program, Step, build_program, output_step

_BEST_EFFORT, _REAL_TIME = 1, 0
_TURNS = 200_000  # check points: a tenth of a second and more, where nobody ends it


class Latencies(NamedTuple):
    """Medians of `rounds`, nanoseconds. launch: one small real-time model, from launch() to its retirement seen.
    launch_call: of these, until launch() returned. flag: from write_epoch(), with blocks spinning on all compute units,
    to the retirement of their window. registered: clients' memory is reached without a copy."""

    launch_ns: int
    launch_call_ns: int
    flag_ns: int
    registered: bool
    rounds: int


def spin_model(
    target: str, units: int, compile_sources: Compile = compile_all, turns: int = _TURNS
) -> _engine.ModelSpec:
    """One word in, one out."""
    storage = [Storage("in", 16, "float32", "input", [16]), Storage("out", 16, "float32", "output", [16])]
    schedule = [Scheduled("spin", [0, 1], "spin", ["read", "write"])]
    model = ModelFile("probe", storage, schedule, [0], [1], 0, version=1)
    kernel = Kernel("Spin", "spin.cuh", {"TURNS": turns}, units, 128, 1, 128)
    steps = [Step("spin", kernel, [("storage", 1, 0, 4)]), output_step(4096)]
    spec = model_spec(Resource(Path(), model, {}, "", {}))
    spec.set_program(build_program(Program(target, steps, np.zeros(0, np.uint8), 0), compile_sources))
    return spec


def probe(
    device: _engine.GpuDevice,
    target: str,
    rounds: int = 100,
    compile_sources: Compile = compile_all,
    turns: int = _TURNS,
) -> Latencies:
    """CompileError where no compiler for the target is installed."""
    model = device.load(spin_model(target, device.info["compute_units"], compile_sources, turns))
    inputs, outputs = [np.ones(16, np.float32)], [np.zeros(16, np.float32)]
    request = _engine.LocalRequest(device, model, inputs, outputs)
    calls, whole = device.repeat(_REAL_TIME, request, rounds)
    flags = []
    for epoch in range(1, rounds + 1):
        device.write_epoch(_BEST_EFFORT, epoch)
        request.clear()
        mark = device.launch(_BEST_EFFORT, request, 0, 1, epoch, True)
        device.wait(_BEST_EFFORT, mark, 0.0005)  # until the blocks spin
        flags.append(device.vacate(_BEST_EFFORT, epoch + rounds, mark)[1])
    middle = statistics.median
    return Latencies(int(middle(whole)), int(middle(calls)), int(middle(flags)), request.registered, rounds)
