# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench models`: whole networks on the CPU device, beside ONNX Runtime with as many threads.

The two take turns of a quarter of a second, and the first run of a turn warms the caches and is not counted; so a slow
moment of the machine falls on both, and neither waits for what the other left in the caches. Both are timed from the
call to the answer in memory that was there before: ONNX Runtime with bound inputs and outputs, reefd from the launch
on the device to its retirement, two wake-ups included. Between kernels ONNX Runtime's threads spin as they do by
default, reefd's for 20 us; before each turn there is a pause in which the other's threads fall asleep.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reefd.bench.daemon import BenchError
from reefd.bench.report import Case, case

PERCEPTION = ("face_detector", "face_mesh", "iris", "person_detector")  # in resource/onnx
MODELS = (
    "resnet50", "vgg19", "densenet121", "inception_v2", "squeezenet", "mobilenet_v2", "bert_base", *PERCEPTION
)  # fmt: skip
TURN_S = 0.25
PAUSE_S = 0.02
LEAST_ROUNDS = 4  # of a turn, the warming one included
TURNS = 4  # at least, of each side
TOLERANCE = 1e-4  # of the largest value of an output
RANGES = {"input_ids": 30522}  # integers of other inputs are 0 or 1

Arrays = dict[str, np.ndarray]
Rounds = Callable[[int], Sequence[int]]  # so many runs in a row: the time of each in nanoseconds


@dataclass(frozen=True, slots=True)
class Result:
    """Two cases for each model, reefd's and the peer's, and how far apart their outputs are."""

    cases: list[Case]
    ratios: dict[str, float]  # medians: reefd / ONNX Runtime
    facts: dict[str, Any]


def measure(names: Sequence[str], threads: int, seconds: float, folder: Path, realtime: bool = False) -> Result:
    """Compiles the networks into `folder` and measures each for about `seconds` a side; with `realtime`, both sides run
    above every ordinary thread of the machine. BenchError: a network is not known, a package or the right to real time
    is missing, or the outputs differ."""
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise BenchError(f"no model {', '.join(unknown)}; there are: {', '.join(MODELS)}")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise BenchError(f"{error}; please run: pip install onnxruntime") from None
    if realtime:
        try:  # inherited by ONNX Runtime's threads
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            raise BenchError("SCHED_FIFO is not permitted") from None
    cases: list[Case] = []
    ratios: dict[str, float] = {}
    differences: dict[str, float] = {}
    for name in names:
        path = _onnx_file(name, folder)
        feeds = _feeds(path)
        ours, our_outputs = _reefd(path, folder / name, feeds, threads, realtime)
        theirs, their_outputs = _onnxruntime(path, feeds, threads)
        ours(1)
        theirs(1)
        differences[name] = _difference(name, our_outputs(), their_outputs())
        times = _alternate((ours, theirs), seconds)
        pair = [case(f"{name} {side}", each) for side, each in zip(("reefd", "onnxruntime"), times, strict=True)]
        cases += pair
        ratios[name] = round(pair[0].p50_us / pair[1].p50_us, 3)
    facts = {
        "threads": threads,
        "realtime": realtime,
        "onnxruntime": onnxruntime.__version__,
        "geometric_mean": round(math.exp(sum(map(math.log, ratios.values())) / len(ratios)), 3),
        "worst": max(ratios.values()),
        "differences": differences,
    }
    return Result(cases, ratios, facts)


def _alternate(sides: Sequence[Rounds], seconds: float) -> list[np.ndarray]:
    counted: list[list[int]] = [[] for _ in sides]
    turn_ns = min(TURN_S, seconds / TURNS) * 1e9
    rounds = [max(LEAST_ROUNDS, math.ceil(turn_ns / max(1, min(side(3))))) for side in sides]
    turns, end = 0, time.monotonic() + seconds * len(sides)
    while turns < TURNS or time.monotonic() < end:
        for side, count, times in zip(sides, rounds, counted, strict=True):
            time.sleep(PAUSE_S)
            times += side(count)[1:]
        turns += 1
    return [np.array(times) for times in counted]


def _reefd(
    path: Path, folder: Path, feeds: Arrays, threads: int, realtime: bool
) -> tuple[Rounds, Callable[[], Arrays]]:
    from reefd import _engine, resource
    from reefd.compiler import compile_model
    from reefd.resource.load import model_spec

    compile_model(path, folder)
    loaded = resource.read(folder)
    storages = loaded.model.storage
    device = _engine.CpuDevice(workers=threads, realtime=realtime)
    model = device.load(model_spec(loaded))
    inputs = [feeds[storages[index].name] for index in loaded.model.inputs]
    outputs = {
        storages[index].name: np.zeros(storages[index].shape, storages[index].stype) for index in loaded.model.outputs
    }

    def run(rounds: int) -> Sequence[int]:
        times: Sequence[int] = device.run(model, inputs, list(outputs.values()), rounds=rounds)["each_ns"]
        return times

    return run, lambda: outputs


def _onnxruntime(path: Path, feeds: Arrays, threads: int) -> tuple[Rounds, Callable[[], Arrays]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    names = [output.name for output in session.get_outputs()]
    for output in session.get_outputs():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(output.shape, np.float32))
        binding.bind_ortvalue_output(output.name, value)

    def run(rounds: int) -> Sequence[int]:
        times = []
        for _ in range(rounds):
            start = time.perf_counter_ns()
            session.run_with_iobinding(binding)
            times.append(time.perf_counter_ns() - start)
        return times

    return run, lambda: dict(zip(names, binding.copy_outputs_to_cpu(), strict=True))


def _onnx_file(name: str, folder: Path) -> Path:
    if name in PERCEPTION:
        path = Path("resource/onnx") / f"{name}.onnx"
        if not path.exists():
            raise BenchError(f"there is no {path}: run this in the root of reefd's sources")
        return path
    import onnx

    from reefd import zoo

    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(zoo.build(name), path)
    return path


def _feeds(path: Path) -> Arrays:
    import onnx

    generator = np.random.default_rng(1)
    feeds = {}
    for info in onnx.load(path, load_external_data=False).graph.input:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        if info.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            feeds[info.name] = generator.integers(0, RANGES.get(info.name, 2), shape)
        else:
            feeds[info.name] = generator.uniform(-1, 1, shape).astype(np.float32)
    return feeds


def _difference(name: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> float:
    """The largest max|a - b| / max|b| of all outputs."""
    apart = float(np.max([np.abs(ours[key] - array).max() / np.abs(array).max() for key, array in theirs.items()]))
    if not apart <= TOLERANCE:
        raise BenchError(f"{name}: the outputs differ by {apart:.1e} of the largest value, more than {TOLERANCE:.0e}")
    return float(f"{apart:.1e}")
