# SPDX-License-Identifier: Apache-2.0
"""Chooses tiles: each shape alone first (a chain of launches over weights too large to cache), then in the network."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from reefd.resource.schema import ITEM_SIZES

from ..compile import compile_source
from ..conv import ConvShape, Tile, conv_kernels
from ..instance import Kernel
from ..source import kernel_source
from ..target import TARGETS
from ..tiles import candidate_tiles, neighbours, spread_out
from .driver import Device, DriverError
from .network import Launch, Network

_TARGET = "sm_90a"
_CHAIN = 24  # launches timed together
_WEIGHT_POOL = 96 << 20


def _compile(batch: tuple[list[Kernel], tuple[str, ...]]) -> bytes:
    return compile_source(kernel_source(batch[0], "cuda", batch[1]), _TARGET)


class Compiler:
    """Compiles kernels in worker processes and loads them into the device. Start it before CUDA."""

    device: Device

    def __init__(self, workers: int) -> None:
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("fork"))
        self._workers = workers
        self._pool.submit(int).result()  # forks all workers now

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def load(self, kernels: Iterable[Kernel], forms: tuple[str, ...] = ("plain",)) -> None:
        wanted = list({k.name: k for k in kernels if "preemptible" in forms or not self.device.knows(k)}.values())
        size = max(1, min(8, -(-len(wanted) // (self._workers * 2))))
        batches = [wanted[i : i + size] for i in range(0, len(wanted), size)]
        for batch, code in zip(batches, self._pool.map(_compile, [(b, forms) for b in batches]), strict=True):
            self.device.load(code, batch, preemptible="preemptible" in forms)


def _time_tile(
    device: Device, shape: ConvShape, tile: Tile, memory: dict[str, int], copies: int, weight_bytes: int
) -> float:
    try:
        kernels = conv_kernels(shape, tile)
        with device.capture() as graph:
            for i in range(_CHAIN):
                weights = memory["w"] + i % copies * weight_bytes
                pointers = [
                    memory["x"],
                    weights,
                    memory["bias"],
                    memory["r"] if shape.residual else 0,
                    0,
                    memory["y"],
                    0,
                    0,
                ]
                for kernel in kernels:
                    device.launch(kernel, pointers, overlap=i > 0)
        executable = graph()
    except DriverError:
        return float("inf")  # a cluster that does not fit, or too much shared memory
    time = device.time_graph(executable, 4) / _CHAIN
    device.release(executable)
    return time


def tune_shapes(
    device: Device, compiler: Compiler, network: Network, known: dict[str, Any], *, quick: bool
) -> tuple[dict[ConvShape, Tile], dict[ConvShape, list[Tile]]]:
    """The best tile of each shape measured alone, and for each the best few in order."""
    tensor_cores = network.dtype == "float16"
    shapes = list(network.conv_shapes())
    every = {s: candidate_tiles(s, TARGETS[_TARGET]) for s in shapes}
    earlier, exact = _known_tiles(known)
    cores = {s: _core(s) for s in shapes}  # shapes that differ in their epilogue only share a measurement
    leaders = {core: next(s for s in shapes if cores[s] == core) for core in cores.values()}
    times: dict[ConvShape, dict[Tile, float]] = {s: {} for s in leaders.values()}

    def look_at(wanted: dict[ConvShape, list[Tile]]) -> None:
        compiler.load(k for s, tiles in wanted.items() for t in tiles for k in conv_kernels(s, t))
        for shape, tiles in wanted.items():
            element = ITEM_SIZES[shape.dtype]
            weight_bytes = -(-shape.o * shape.groups * (shape.depth + 8) * element // 256) * 256
            copies = max(1, min(_CHAIN, _WEIGHT_POOL // weight_bytes))
            sizes = {
                "x": shape.n * shape.h * shape.w * max(shape.x_pitch, shape.c * shape.groups) * 4,
                "w": weight_bytes * copies,
                "bias": shape.o * shape.groups * 4,
                "r": shape.pixels * max(shape.residual_pitch, shape.residual, 1) * element,
                "y": shape.pixels * max(shape.y_pitch, shape.o * shape.groups) * 4,
            }
            memory = {key: device.allocate(size) for key, size in sizes.items()}
            for key, size in sizes.items():
                device.fill(memory[key], size, 0x2E)  # 0.1 as a half, 4e-11 as a float
            for tile in tiles:
                times[shape][tile] = _time_tile(device, shape, tile, memory, copies, weight_bytes)
            for pointer in memory.values():
                device.free(pointer)

    guesses = {
        s: [t for t in earlier.get(s.dtype, {}).get(_key(cores[s]), []) if t in every[s]] for s in leaders.values()
    }
    if quick:
        look_at({s: guesses[s] or every[s][:1] for s in leaders.values()})
    else:
        look_at({s: [*guesses[s], *spread_out(every[s], 2 if tensor_cores else 1)] for s in leaders.values()})
        second = {}
        for s in leaders.values():
            best = sorted(times[s], key=lambda t, s=s: times[s][t])[:3]  # type: ignore[misc]
            second[s] = [t for b in best for t in neighbours(b, every[s])[:10] if t not in times[s]]
        look_at(second)
    report = {s: sorted(times[leaders[cores[s]]], key=lambda t, s=s: times[leaders[cores[s]]][t])[:6] for s in shapes}  # type: ignore[misc]
    for shape in shapes:  # chosen for exactly this shape in a network: better than the best of a chain
        for tile in exact.get(shape, []):
            report[shape] = [tile, *(t for t in report[shape] if t != tile)]
    return {s: report[s][0] for s in shapes}, report


def _core(shape: ConvShape) -> ConvShape:
    return shape._replace(residual=0, residual_pitch=0, activation="none", alpha=0.0, beta=0.0, y_pitch=0, x_pitch=0)


def _key(shape: ConvShape) -> str:
    return repr(tuple(shape))


def _known_tiles(known: dict[str, Any]) -> tuple[dict[str, dict[str, list[Tile]]], dict[ConvShape, list[Tile]]]:
    """Tiles of an earlier run: by type and shape without epilogue, and by exact shape."""
    found: dict[str, dict[str, list[Tile]]] = {}
    exact: dict[ConvShape, list[Tile]] = {}
    for result in known.get("results", []):
        for *fields, tile in result["tiles"]:
            shape = ConvShape._make(tuple(f) if isinstance(f, list) else f for f in fields)
            exact.setdefault(shape, []).append(Tile(*tile))
            found.setdefault(shape.dtype, {}).setdefault(_key(_core(shape)), []).append(Tile(*tile))
    return found, exact


def refine(
    device: Device,
    compiler: Compiler,
    network: Network,
    tiles: dict[ConvShape, Tile],
    report: dict[ConvShape, list[Tile]],
    capture: Callable[[Device, list[Launch]], Any],
) -> dict[ConvShape, Tile]:
    """Replaces one shape's tile at a time where that makes the whole network faster."""
    compiler.load(k for s, best in report.items() for t in best for k in conv_kernels(s, t))

    def network_time(chosen: dict[ConvShape, Tile]) -> float:
        graph = capture(device, network.launches(chosen))
        time = device.time_graph(graph, 10)
        device.release(graph)
        return time

    best = network_time(tiles)
    first = best
    uses = network.conv_shapes()
    for shape in sorted(report, key=lambda s: -len(uses[s])):
        for tile in report[shape][1:]:
            trial = {**tiles, shape: tile}
            time = network_time(trial)
            if time < best - 0.2:
                tiles, best = trial, time
    print(f"   in the network: {first:.1f} -> {best:.1f} us", flush=True)
    return tiles
