# SPDX-License-Identifier: Apache-2.0
"""Chooses the tile of every convolution and product of a resource by measuring on the device it will run on.

A shape is timed alone, as a chain of launches over weights that no cache keeps. Shapes that differ in their epilogue
only share a measurement. At last the whole network is timed with the tiles found and with those it had, so that a
resource never gets slower. Without tuning the tile is the compiler's: measured before for that kind of device, or
the best by estimate.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reefd import _engine, feeds
from reefd.resource import Kernel as Scheduled
from reefd.resource import ModelFile, Resource, Storage
from reefd.resource.code import Code
from reefd.resource.load import model_spec
from reefd.resource.read import processors, read_code
from reefd.resource.schema import ITEM_SIZES

from .compilers import compile_all
from .conv import ConvShape, Tile, conv_kernels
from .instance import ceil_div
from .known_tiles import core
from .program import Argument, Compile, Program, Step, assemble, build_program, output_step, plan_program
from .stored import make, plan
from .target import TARGETS
from .tiles import candidate_tiles, neighbours, spread_out

Array = NDArray[Any]
_REAL_TIME = 0
_COMPILING, _MEASURING = 0.2, 0.1  # shares of all the work, about
_WEIGHT_POOL = 96 << 20  # bytes of weights that a chain walks through
_NONE: Argument = ("none", 0, 0, 0)
Progress = Callable[[str, float], None]  # what is measured, and how much of all was


class Effort(NamedTuple):
    """How thorough: forms of tiles in a first look, neighbours of the best two in a second, launches timed together,
    and how often."""

    first: int = 16
    second: int = 8
    chain: int = 16
    rounds: int = 15


THOROUGH = Effort()


class Tuned(NamedTuple):
    """The faster code, how many shapes and tiles were measured, and the network's time with the tiles it had and with
    those found, nanoseconds."""

    code: Code
    shapes: int
    measured: int
    before_ns: int
    after_ns: int


class Tuner:
    """Measures on one device."""

    def __init__(
        self,
        device: _engine.GpuDevice,
        target: str,
        effort: Effort = THOROUGH,
        compile_sources: Compile = compile_all,
        progress: Progress = lambda what, share: None,
    ) -> None:
        self.device, self.target, self.effort, self.compile_sources = device, target, effort, compile_sources
        self.progress = progress
        self.measured = 0

    def best(self, shapes: Mapping[ConvShape, Sequence[Tile]]) -> dict[ConvShape, Tile]:
        """Of a bounded number of candidates for each shape, and of those given with it. All shapes together: so the
        processors that compile have no gaps. ValueError: no tile fits one of the shapes."""
        every = {shape: candidate_tiles(shape, TARGETS[self.target]) for shape in shapes}
        if unfit := [shape for shape, tiles in every.items() if not tiles]:
            raise ValueError(f"no tile fits {unfit[0]}")
        first = {
            shape: [
                *(tile for tile in start if tile in every[shape]),
                *spread_out(every[shape], 1)[: self.effort.first],
            ]
            for shape, start in shapes.items()
        }
        times = self._times(first, 0.0)
        second = {}
        for shape, known in times.items():
            leaders = sorted(known, key=lambda tile: known[tile])[:2]
            near = [tile for leader in leaders for tile in neighbours(leader, every[shape]) if tile not in known]
            second[shape] = list(dict.fromkeys(near))[: self.effort.second]
        for shape, more in self._times(second, 0.6).items():
            times[shape] |= more
        return {shape: min(known, key=lambda tile: known[tile]) for shape, known in times.items()}

    def _times(self, tiles: Mapping[ConvShape, Sequence[Tile]], share: float) -> dict[ConvShape, dict[Tile, float]]:
        """Nanoseconds of one launch with each tile; those that the device refuses are left out. `share` of all the work
        was done before."""
        pairs = [(shape, tile) for shape, several in tiles.items() for tile in dict.fromkeys(several)]
        times: dict[ConvShape, dict[Tile, float]] = {shape: {} for shape in tiles}
        word = np.zeros(16, np.float32)
        for number, ((shape, tile), built) in enumerate(zip(pairs, self._built(pairs, share), strict=True)):
            self.progress(
                f"measured {number + 1} of {len(pairs)} tiles", share + _COMPILING + _MEASURING * number / len(pairs)
            )
            try:
                times[shape][tile] = self._time(_spec(built), [word], [word.copy()]) / self.effort.chain
            except (_engine.ModelError, _engine.EngineError):
                continue  # more shared memory, or a larger cluster, than this device gives
            self.measured += 1
        return times

    def _built(self, pairs: Sequence[tuple[ConvShape, Tile]], share: float) -> Iterator[_engine.GpuProgram]:
        """Of each tile its chain, in order. All code is there before the first: a compiler beside would be measured."""
        programs = [self._chain(shape, tile) for shape, tile in pairs]
        kept: dict[tuple[str, str], bytes] = {}

        def collect(sources: Sequence[tuple[str, str]]) -> list[bytes]:
            kept.update(dict.fromkeys(sources, b""))
            return [b""] * len(sources)

        for program in programs:
            build_program(program, collect)
        for number, (source, code) in enumerate(zip(list(kept), self.compile_sources(list(kept)), strict=True)):
            self.progress(f"compiled {number + 1} of {len(kept)} tiles", share + _COMPILING * number / len(kept))
            kept[source] = code
        for program in programs:
            yield build_program(program, lambda sources: [kept[source] for source in sources])

    def network_time(self, resource: Resource, program: Program, code: Code) -> float:
        """The median time of a request with seeded inputs, nanoseconds."""
        spec = model_spec(resource)
        spec.set_program(assemble(program, {names: content.tobytes() for names, content in code.objects.items()}))
        return self._time(spec, feeds.random(resource, 1), list(feeds.outputs(resource).values()))

    def _time(self, spec: _engine.ModelSpec, inputs: list[Array], outputs: list[Array]) -> float:
        """From the launch of a request until it is seen to have ended."""
        model = self.device.load(spec)
        request = _engine.LocalRequest(self.device, model, inputs, outputs)
        self.device.repeat(_REAL_TIME, request, 2)
        return statistics.median(self.device.repeat(_REAL_TIME, request, self.effort.rounds)[1])

    def _chain(self, shape: ConvShape, tile: Tile) -> Program:
        """Launches over one input and one output; everything lies in the workspace, whose content nobody reads."""
        kernels = conv_kernels(shape, tile)
        item, channels = ITEM_SIZES[shape.dtype], shape.o * shape.groups
        row = ceil_div(shape.depth * item, 16) * 16
        weights = ceil_div(row * channels, 256) * 256
        copies = max(1, min(self.effort.chain, _WEIGHT_POOL // weights))
        end = 0

        def room(nbytes: int) -> Argument:
            nonlocal end
            start, end = end, end + ceil_div(nbytes, 256) * 256
            return ("workspace", 0, start, nbytes)

        x = room(shape.n * shape.h * shape.w * max(shape.x_pitch, shape.c * shape.groups) * 4)
        w = room(weights * copies)
        bias, slope = room(channels * 4), room(channels * 4)
        residual = room(shape.pixels * max(shape.residual_pitch, shape.residual, 1) * 4)
        y = room(shape.pixels * max(shape.y_pitch, channels) * 4)
        parts = room(tile.parts * shape.pixels * channels * 4) if tile.parts > 1 else _NONE
        steps: list[Step] = []
        for number in range(self.effort.chain):
            mine: Argument = ("workspace", 0, w[2] + number % copies * weights, weights)
            given = [[x, mine, bias, residual, slope, y]]
            if tile.parts > 1:
                given = [[x, mine, _NONE, _NONE, _NONE, parts], [parts, _NONE, bias, residual, slope, y]]
            steps += [Step(f"{number}", kernel, args) for kernel, args in zip(kernels, given, strict=True)]
        return Program(self.target, [*steps, output_step(4096)], np.zeros(0, np.uint8), end)


def _spec(program: _engine.GpuProgram) -> _engine.ModelSpec:
    """A model of one word in and one out, around a program that touches neither."""
    storage = [Storage("in", 16, "float32", "input", [16]), Storage("out", 16, "float32", "output", [16])]
    model = ModelFile(
        "tuning", storage, [Scheduled("chain", [0, 1], "chain", ["read", "write"])], [0], [1], 0, version=1
    )
    spec = model_spec(Resource(Path(), model, {}, "", {}))
    spec.set_program(program)
    return spec


def tune(resource: Resource, tuner: Tuner) -> Tuned:
    """Measures the tiles of a resource's network. LowerError, CompileError, EngineError, ModelError, ResourceError as
    for compiling and loading it."""
    target, model = tuner.target, resource.model
    stored = read_code(resource, target) if target in processors(resource) else None
    before = plan(resource, stored.file) if stored else plan_program(model, resource.weights, target, model.precision)
    leaders = {core(shape): shape for shape in before.tiles}
    best = tuner.best({shape: [before.tiles[shape]] for shape in leaders.values()})
    tuner.progress("the network", 0.9)
    tiles = {shape: best[leaders[core(shape)]] for shape in before.tiles}
    after = plan_program(model, resource.weights, target, model.precision, tiles)
    made = [
        make(program, tuned_on=tuner.device.info["name"], compile_sources=tuner.compile_sources)
        for program in (before, after)
    ]
    times = [tuner.network_time(resource, program, code) for program, code in zip((before, after), made, strict=True)]
    chosen = made[times[1] <= times[0]]
    return Tuned(chosen, len(leaders), tuner.measured, round(times[0]), round(times[1]))
