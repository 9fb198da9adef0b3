# SPDX-License-Identifier: Apache-2.0
"""Every device that the conformance suite drives, and small models that each of them can load.

The stand-in drivers run the GPU code of the engine in this process. `REEF_TEST_GPU=cuda` or `hip` takes the machine's
own driver and card instead, and code made for it.
"""

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reefd import _engine
from reefd.gpu.compile import compile_source
from reefd.gpu.instance import Kernel
from reefd.gpu.program import Argument, Program, Step, area_bytes, build_program, output_steps, plan_program
from reefd.resource import Resource
from reefd.resource.load import model_spec
from reefd.resource.schema import Kernel as Scheduled
from reefd.resource.schema import ModelFile, Storage
from tests import ROOT

from . import standin

Array = NDArray[Any]
REAL = os.environ.get("REEF_TEST_GPU", "")
REAL_TARGET = {"cuda": "sm_90a", "hip": "gfx906"}
GPUS = [REAL] if REAL else ["cuda", "hip"]
DEVICES = ["cpu", *GPUS]
_CACHE = ROOT / "build" / "host-kernels"


def target(kind: str) -> str:
    return REAL_TARGET[kind] if REAL else "host"


def open_device(kind: str, **options: Any) -> _engine.LocalDevice:
    if kind == "cpu":
        return _engine.CpuDevice(workers=3, **options)
    if not REAL:
        standin.load(kind)
    return _engine.GpuDevice(kind, **options)  # type: ignore[arg-type]


def compile_cached(sources: Sequence[tuple[str, str]]) -> list[bytes]:
    """Tests compile the same kernels again and again."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    codes = []
    for source, for_target in sources:
        key = hashlib.sha256(f"{for_target}\n{source}".encode()).hexdigest()[:24]
        path = _CACHE / f"{key}.{for_target}"
        if not path.exists():
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(compile_source(source, for_target))
            temporary.rename(path)
        codes.append(path.read_bytes())
    return codes


class Case(NamedTuple):
    """A model, its seeded inputs, and the shapes of its outputs."""

    spec: _engine.ModelSpec
    inputs: list[Array]
    shapes: list[list[int]]

    def outputs(self) -> list[Array]:
        """Filled with what no kernel computes."""
        return [np.full(shape, np.nan, np.float32) for shape in self.shapes]


def with_program(spec: _engine.ModelSpec, program: Program) -> _engine.ModelSpec:
    spec.set_program(build_program(program, compile_cached))
    return spec


def model_case(
    kind: str, model: ModelFile, weights: dict[str, Array], seed: int = 5, dtype: str = "float32", tiles: Any = None
) -> Case:
    spec = model_spec(Resource(Path(), model, weights, "", {}))
    if kind != "cpu":
        with_program(spec, plan_program(model, weights, target(kind), dtype, tiles))
    generator = np.random.default_rng(seed)
    inputs: list[Array] = [generator.random(model.storage[i].shape, np.float32) for i in model.inputs]
    return Case(spec, inputs, [model.storage[i].shape for i in model.outputs])


def chain_model(kernels: int, elements: int) -> tuple[ModelFile, dict[str, Array]]:
    """in -> element-wise kernels -> out, whose result depends on each of them having run, in order; and its weights."""
    generator = np.random.default_rng(1)
    storage = [
        Storage("in", elements, "float32", "input", [elements]),
        Storage("out", elements, "float32", "output", [elements]),
        Storage("t0", elements, "float32", "arena", [elements], 0),
        Storage("t1", elements, "float32", "arena", [elements], elements * 4),
    ]
    weights: dict[str, Array] = {}
    schedule = []
    for index in range(kernels):
        before = 0 if index == 0 else 2 + (index - 1) % 2
        after = 1 if index == kernels - 1 else 2 + index % 2
        if index % 3 == 2:
            schedule.append(
                Scheduled(f"k{index}", [before, after], "unary", ["read", "write"], {"activation": "sigmoid"})
            )
            continue
        weights[f"w{index}"] = generator.uniform(0.5, 1.5, elements).astype(np.float32)
        storage.append(Storage(f"w{index}", elements, "float32", "weight", [elements]))
        function = "mul" if index % 3 else "add"
        schedule.append(
            Scheduled(
                f"k{index}",
                [before, len(storage) - 1, after],
                "binary",
                ["read", "read", "write"],
                {"function": function},
            )
        )
    return ModelFile(f"chain{kernels}", storage, schedule, [0], [1], elements * 8, version=1), weights


@functools.cache
def chain(kind: str, kernels: int, elements: int) -> Case:
    return model_case(kind, *chain_model(kernels, elements))


def probe_kernel(number: int, blocks: int, turns: int, spin: int, deaf: bool) -> Kernel:
    constants = {"ID": number, "TURNS": turns, "SPIN": spin, "DEAF": deaf}
    return Kernel("Probe", str(Path(__file__).with_name("probe.cuh")), constants, blocks, 64, 1, 128)


@functools.cache
def probes(kind: str, kernels: int, blocks: int, turns: int = 4, spin: int = 200, deaf: bool = False) -> Case:
    """in -> probes -> out and counts; only for GPUs. Every count ends as the number of kernels."""
    elements = blocks * 64
    spin *= 100 if REAL else 1  # a card is that much faster than fibers
    storage = [
        Storage("in", elements, "float32", "input", [elements]),
        Storage("out", elements, "float32", "output", [elements]),
        Storage("counts", elements, "float32", "output", [elements]),
        Storage("t0", elements, "float32", "arena", [elements], 0),
        Storage("t1", elements, "float32", "arena", [elements], elements * 4),
    ]
    schedule = [Scheduled("probes", [0, 1, 2], "probe", ["read", "write", "write"])]
    model = ModelFile("probes", storage, schedule, [0], [1, 2], elements * 8, version=1)
    nbytes = elements * 4

    def tensor(index: int) -> Argument:
        return ("storage", index, storage[index].offset, nbytes)

    steps = []
    for number in range(kernels):
        before = 0 if number == 0 else 3 + (number - 1) % 2
        after = 1 if number == kernels - 1 else 3 + number % 2
        kernel = probe_kernel(number, blocks, turns, spin, deaf)
        steps.append(Step(f"probe{number}", kernel, [tensor(before), tensor(after), tensor(2)]))
    steps += output_steps(area_bytes(model, model.outputs))
    spec = model_spec(Resource(Path(), model, {}, "", {}))
    with_program(spec, Program(target(kind), steps, np.zeros(0, np.uint8), 0))
    inputs: list[Array] = [np.random.default_rng(2).random(elements, np.float32)]
    return Case(spec, inputs, [[elements], [elements]])
