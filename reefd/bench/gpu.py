# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench gpu`: networks on a GPU beside PyTorch, what the preemptible form costs, how quickly best-effort work
leaves, exactness at every kernel and at random instants, and real-time requests beside best-effort loads.

Resources come from a folder (`reefctl zoo`, `reefctl compile --gpu`), named NETWORK-float16 and NETWORK-float32.
Weights are seeded noise. Times are microseconds on one machine in one run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reefd import _engine, resource
from reefd.bench.daemon import BenchError
from reefd.bench.report import quantile
from reefd.gpu import stored
from reefd.gpu.conv import ConvShape, Tile, conv_kernels
from reefd.gpu.program import Argument, Program, Step, area_bytes, build_program, output_steps
from reefd.resource.load import model_spec
from reefd.resource.schema import Kernel, ModelFile, Storage

NETWORKS = ("resnet18", "resnet50", "resnet152", "vgg16", "densenet121", "inception_v3", "mobilenet_v2")
PRECISIONS = ("float32", "float16")
_REAL_TIME, _BEST_EFFORT = 0, 1
Say = Callable[[str], None]


def spread(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Microseconds."""
    return {name: round(quantile(nanoseconds, q) / 1e3, 2) for name, q in (("p50_us", 0.5), ("p99_us", 0.99))}


class Loaded:
    """A resource on the device, with one request of seeded inputs."""

    def __init__(self, device: _engine.GpuDevice, folder: Path) -> None:
        read = resource.read(folder)
        spec = model_spec(read)
        spec.set_program(stored.load(read, device.info["target"]))
        self.device, self.folder = device, folder
        self.model = device.load(spec)
        storage = read.model.storage
        generator = np.random.default_rng(5)
        self.inputs: list[Any] = [generator.random(storage[i].shape, np.float32) for i in read.model.inputs]
        self.outputs: list[Any] = [np.full(storage[i].shape, np.nan, np.float32) for i in read.model.outputs]
        self.request = _engine.LocalRequest(device, self.model, self.inputs, self.outputs)

    def bits(self) -> list[bytes]:
        self.request.copy_out()
        return [output.tobytes() for output in self.outputs]


def latency(device: _engine.GpuDevice, folder: Path, rounds: int) -> dict[str, Any]:
    """A network from launch to retirement: the real-time graph (with its copies over PCIe), and as best effort."""
    loaded = Loaded(device, folder)
    device.repeat(_REAL_TIME, loaded.request, 20)
    launching, whole = device.repeat(_REAL_TIME, loaded.request, rounds)
    plain_bits = loaded.bits()
    device.write_epoch(_BEST_EFFORT, 1)
    device.repeat(_BEST_EFFORT, loaded.request, 20, 1, True)
    figures: dict[str, Any] = {"launches": len(loaded.model.kernels), **spread(whole), "launch": spread(launching)}
    plain, preemptible = [], []
    for _ in range(5):  # in turns: both meet the same clocks
        plain.append(statistics.median(device.repeat(_BEST_EFFORT, loaded.request, rounds // 5)[1]))
        preemptible.append(statistics.median(device.repeat(_BEST_EFFORT, loaded.request, rounds // 5, 1, True)[1]))
    figures["preemptible_us"] = round(statistics.median(preemptible) / 1e3, 2)
    figures["plain_segments_us"] = round(statistics.median(plain) / 1e3, 2)
    figures["preemptible_cost"] = round(statistics.median(preemptible) / statistics.median(plain), 4)
    figures["same_bits"] = loaded.bits() == plain_bits
    return figures


def outputs_against_onnxruntime(device: _engine.GpuDevice, folder: Path, onnx_file: Path, python: str) -> float:
    """The relative error of the network's outputs against ONNX Runtime's on the CPU, the worst of all outputs."""
    reference = onnx_file.with_suffix(".npz")
    if not reference.exists():
        script = Path(__file__).with_name("gpu_reference.py")
        done = subprocess.run([python, str(script), str(onnx_file), str(reference)], capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"{python} has no ONNX Runtime: {done.stderr[-500:]}")
    loaded = Loaded(device, folder)
    device.repeat(_REAL_TIME, loaded.request, 1)
    loaded.request.copy_out()
    with np.load(reference) as expected:
        errors = [
            np.abs(ours.reshape(-1) - theirs.reshape(-1)).max() / np.abs(theirs).max()
            for ours, theirs in zip(loaded.outputs, expected.values(), strict=True)
        ]
    return float(max(errors))


def exactness(device: _engine.GpuDevice, folder: Path, instants: int) -> dict[str, Any]:
    """Preempts a network at each kernel, then at random instants, and compares every bit with an undisturbed run."""
    loaded = Loaded(device, folder)
    device.repeat(_REAL_TIME, loaded.request, 1)
    expected = loaded.bits()
    kernels = len(loaded.model.kernels)
    differing = preempted = 0

    def run(**options: Any) -> None:
        nonlocal differing, preempted
        outputs = [np.full_like(output, np.nan) for output in loaded.outputs]
        report = device.run(loaded.model, loaded.inputs, outputs, preemptible=True, **options)
        preempted += report["preempted"]
        differing += [output.tobytes() for output in outputs] != expected

    for kernel in range(kernels):
        run(interrupt_at=[kernel], within_ns=15_000, seed=kernel)
    at_kernels = preempted
    runs = 0
    while preempted - at_kernels < instants and runs < 4 * instants:
        run(interrupts=4, within_ns=300_000, seed=runs)
        runs += 1
    return {
        "kernels": kernels,
        "preempted_at_kernels": at_kernels,
        "preempted_at_random": preempted - at_kernels,
        "runs": kernels + runs,
        "differing": differing,
    }


def product_chain(target: str, depth: int, kernels: int) -> _engine.ModelSpec:
    """in -> matrix products of `depth`, all alike -> out: best-effort work whose blocks take a known time."""
    rows, columns = 128 * 11, 768  # as many blocks of 128 x 64 as an H200 has compute units
    storage = [
        Storage("in", rows * depth, "float32", "input", [rows, depth]),
        Storage("out", rows * columns, "float32", "output", [rows, columns]),
        Storage("y", rows * columns, "float32", "arena", [rows, columns]),
        Storage("w", columns * depth, "float32", "weight", [columns, depth]),
    ]
    schedule = [Kernel("k", [0, 3, 1], "matmul", ["read", "read", "write"], {"trans_b": 1})]
    model = ModelFile("products", storage, schedule, [0], [1], rows * columns * 4, version=1)
    generator = np.random.default_rng(1)
    weights: dict[str, Any] = {"w": generator.standard_normal((columns, depth)).astype(np.float32)}
    spec = model_spec(resource.Resource(Path(), model, weights, "", {}))
    shape = ConvShape(1, rows, 1, depth, columns)
    tile = Tile(128, 64, 32, 8, 8, stages=3)
    (kernel,) = conv_kernels(shape, tile)

    def tensor(index: int) -> Argument:
        return ("storage", index, 0, storage[index].bytes)

    none: Argument = ("none", 0, 0, 0)
    steps = []
    for number in range(kernels):
        to = tensor(1 if number == kernels - 1 else 2)
        steps.append(Step(f"product{number}", kernel, [tensor(0), tensor(3), none, none, none, to]))
    steps += output_steps(area_bytes(model, model.outputs))
    spec.set_program(build_program(Program(target, steps, np.zeros(0, np.uint8), 0)))
    return spec


def preemption(device: _engine.GpuDevice, depths: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Epoch write to the retirement of the last best-effort window, as the host sees it (a little later than the last
    block's end), by the length of the kernels; `wait` lets running blocks finish, `streams` everything queued."""
    rng = np.random.default_rng(3)
    found = []
    for depth in depths:
        kernels = 6
        spec = product_chain(device.info["target"], depth, kernels)
        model = device.load(spec)
        inputs, outputs = [rng.random((1408, depth), np.float32)], [np.zeros((1408, 768), np.float32)]
        request = _engine.LocalRequest(device, model, inputs, outputs)
        epoch = 100
        device.write_epoch(_BEST_EFFORT, epoch)
        alone = 0.0
        for _ in range(5):  # without the copies
            request.clear()
            device.wait(_BEST_EFFORT, device.launch(_BEST_EFFORT, request, 0, 1, epoch, True))
            begin = time.perf_counter_ns()
            device.vacate(_BEST_EFFORT, epoch, device.launch(_BEST_EFFORT, request, 1, kernels, epoch, True))
            alone = time.perf_counter_ns() - begin
        row: dict[str, Any] = {"kernel_us": round(alone / (kernels - 1) / 1e3, 1)}
        for policy in ("reset", "wait", "streams"):
            times, written = [], []
            for _ in range(rounds):
                request.clear()
                device.wait(_BEST_EFFORT, device.launch(_BEST_EFFORT, request, 0, 1, epoch, True))
                mark = device.launch(_BEST_EFFORT, request, 1, kernels, epoch, policy != "streams", policy == "wait")
                end = time.perf_counter_ns() + int(rng.uniform(0.15, 0.7) * alone)
                while time.perf_counter_ns() < end:
                    device.poll()  # as the engine's thread does
                epoch += 1
                write_ns, total_ns = device.vacate(_BEST_EFFORT, epoch, mark)
                written.append(write_ns)
                times.append(total_ns)
            row[policy] = spread(times)
            if policy == "reset":
                row["write_call"] = spread(written)
        found.append(row)
    return found


def splits(device: _engine.GpuDevice, folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """By the number of compute units set aside: microseconds of the network as real-time work on the others, and as
    best-effort work on those. 0: each on the whole device. Nothing runs beside it."""
    loaded, info = Loaded(device, folder), device.info
    device.write_epoch(_BEST_EFFORT, 1)
    found = {}
    for aside in range(0, info["split_most"] + 1, info["split_granule"] or 1):
        times = {}
        for name, queue, preemptible in (("real_time_us", _REAL_TIME, False), ("best_effort_us", _BEST_EFFORT, True)):
            device.repeat(queue, loaded.request, 10, 1, preemptible, split=aside)
            whole = device.repeat(queue, loaded.request, rounds, 1, preemptible, split=aside)[1]
            times[name] = round(statistics.median(whole) / 1e3, 2)
        found[str(aside)] = times
    return found


def torch_latency(python: str, networks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """PyTorch's figures by "network dtype": the faster of its two memory formats."""
    script = Path(__file__).with_name("gpu_torch.py")
    done = subprocess.run([python, str(script), *networks], capture_output=True, text=True, check=False)
    best: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        key = f"{row['network']} {row['dtype']}"
        if key not in best or row["p50_us"] < best[key]["p50_us"]:
            best[key] = row
    if not best:
        raise BenchError(f"{python} measured nothing: {done.stderr[-500:]}")
    return best


def single_kernels(folder: Path) -> dict[str, Any]:
    """Each kernel alone in both forms, by a process with a context of its own."""
    command = [sys.executable, "-m", "reefd.bench.gpu_kernels", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(done.stderr[-500:])
    return dict(json.loads(done.stdout))


def measure(
    folder: Path, networks: Sequence[str], torch_python: str, rounds: int, seconds: float, say: Say
) -> dict[str, Any]:
    """All figures. What fails is reported in its place, and FOLDER/gpu.json holds what is known before each step: a
    long run is not lost, nor one that is killed."""
    try:
        device = _engine.GpuDevice("cuda")
    except _engine.EngineError as error:
        raise BenchError(str(error)) from None
    result: dict[str, Any] = {"device": device.info, "networks": {}}

    def save() -> None:
        unfinished = folder / "gpu.json.new"
        unfinished.write_text(json.dumps(result))
        unfinished.replace(folder / "gpu.json")

    def attempt(key: str, what: Callable[[], Any]) -> Any:
        save()
        started = time.monotonic()
        try:
            value = what()
        except Exception as error:
            value = {"error": f"{type(error).__name__}: {error}"}
        say(f"{key}: {json.dumps(value)} [{time.monotonic() - started:.1f} s]")
        return value

    peers = attempt("torch", lambda: torch_latency(torch_python, networks)) if torch_python else {}
    for network in networks:
        for dtype in PRECISIONS:
            name = f"{network}-{dtype}"
            if not (folder / name).exists():
                continue
            row = attempt(name, lambda name=name: latency(device, folder / name, rounds))  # type: ignore[misc]
            row["error_against_onnxruntime"] = attempt(
                f"{name} against ONNX Runtime",
                lambda name=name, network=network: outputs_against_onnxruntime(  # type: ignore[misc]
                    device, folder / name, folder / f"{network}.onnx", torch_python or sys.executable
                ),
            )
            peer = peers.get(f"{network} {dtype}")
            if peer and "p50_us" in row:
                row["torch"], row["ratio"] = peer, round(row["p50_us"] / peer["p50_us"], 3)
            result["networks"][name] = row
    for dtype in PRECISIONS:
        result[f"exact.{dtype}"] = attempt(
            f"exact resnet50 {dtype}",
            lambda dtype=dtype: exactness(device, folder / f"resnet50-{dtype}", 1000),  # type: ignore[misc]
        )
    # Blocks of a cluster that have more to add up: as many kernels of another kind.
    result["exact.vgg16"] = attempt("exact vgg16 float16", lambda: exactness(device, folder / "vgg16-float16", 300))
    kernels = result.setdefault("kernels", {})
    for network in ("resnet50", "densenet121"):
        name = f"{network}-float16"
        kernels[name] = attempt(f"kernels {name}", lambda name=name: single_kernels(folder / name))  # type: ignore[misc]
    result["preemption"] = attempt("preemption", lambda: preemption(device, (64, 512, 4096, 16384, 98304), 200))
    from reefd.bench import gpu_beside

    gpu_beside.measure(folder, seconds, attempt, result.setdefault("beside", {}))
    split_times = result.setdefault("splits", {})
    for network in networks:
        split_times[f"{network}-float16"] = attempt(
            f"splits {network}",
            lambda network=network: splits(device, folder / f"{network}-float16", 100),  # type: ignore[misc]
        )
    save()
    return result
