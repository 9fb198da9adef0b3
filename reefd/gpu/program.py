# SPDX-License-Identifier: Apache-2.0
"""A model as a program for one GPU target: what the engine's GPU device loads beside model.json and the weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reefd._engine import GpuProgram
from reefd.resource.schema import ITEM_SIZES, ModelFile

from .compile import target_kind
from .compilers import compile_all
from .conv import ConvShape, Tile
from .instance import Kernel, ceil_div
from .known_tiles import known_tiles
from .lower import Launch, Workspace, lower_model
from .simple import transfer_kernel
from .source import kernel_source
from .target import TARGETS

Array = NDArray[Any]
Argument = tuple[str, int, int, int]  # memory, storage, offset, bytes
_PAGE = 4096
_BATCH = 6  # kernels compiled together
# Outputs up to this are written to the host's memory by a kernel, which is part of the graph: a real-time request has
# no copy to launch or to wait for. Its stores are as fast as the copy engine (24 GB/s for 393 KB on an H200),
# but those that were issued are not called back when real-time work comes, whose own wait behind them: 317 us at p99
# beside kernels that write 12.6 MB, nothing that could be told beside pieces by the engine.
_KERNEL_OUTPUTS = 16 << 10
_NONE: Argument = ("none", 0, 0, 0)


class Step(NamedTuple):
    """One launch: its kernel, which operator it came from, and where its arguments point."""

    name: str
    kernel: Kernel
    arguments: list[Argument]
    operation: str = ""  # the kernel of the schedule; empty: the transfer of the outputs


class Program(NamedTuple):
    """Everything but the code: steps in order, the constants as one block, and the bytes of the shared workspace."""

    target: str
    steps: list[Step]
    constants: NDArray[np.uint8]
    workspace_bytes: int
    tiles: Mapping[ConvShape, Tile] = {}  # what was chosen for its convolutions and products


Compile = Callable[[Sequence[tuple[str, str]]], Iterable[bytes]]


def area_bytes(model: ModelFile, storages: Sequence[int]) -> int:
    """Of a slot's inputs or outputs: each tensor begins on a page, as the engine places them."""
    return sum(ceil_div(model.storage[i].bytes, _PAGE) * _PAGE for i in storages)


def plan_program(
    model: ModelFile,
    weights: Mapping[str, Array],
    target: str,
    dtype: str = "float32",
    tiles: Mapping[ConvShape, Tile] | None = None,
) -> Program:
    """Chooses the kernels of a model for a target, with the tiles that were measured to be best there unless others are
    given. LowerError names a kernel that has no GPU form."""
    lowered = lower_model(model, weights, TARGETS[target], dtype, known_tiles(target) if tiles is None else tiles)
    offsets, constants = _pack(lowered.constants)
    arena = next((i for i, s in enumerate(model.storage) if s.kind == "arena" and s.base < 0), 0)
    workspace = max(
        (a.offset + a.bytes for launch in lowered.launches for a in launch.args if isinstance(a, Workspace)), default=0
    )

    def argument(given: int | str | Workspace | None) -> Argument:
        if given is None:
            return _NONE
        if isinstance(given, Workspace):
            return ("workspace", 0, given.offset, given.bytes)
        if isinstance(given, str):
            return ("constant", 0, offsets[given], lowered.constants[given].nbytes)
        memory, offset = lowered.places[given]
        size = model.storage[given].size * ITEM_SIZES[lowered.dtypes[given]]
        return ("storage", arena if memory == "arena" else int(memory), offset, size)

    def step(number: int, launch: Launch) -> Step:
        arguments = [argument(given) for given in launch.args]
        return Step(f"{number}:{launch.kernel.family.lower()}", launch.kernel, arguments, lowered.operations[number])

    steps = [step(number, launch) for number, launch in enumerate(lowered.launches)]
    steps += output_steps(area_bytes(model, model.outputs))
    return Program(target, steps, constants, ceil_div(workspace, 256) * 256, lowered.tiles)


def output_steps(nbytes: int) -> list[Step]:
    """Behind the last kernel: outputs to where the request wants them. None where the copy engine takes them."""
    return [output_step(nbytes)] if nbytes <= _KERNEL_OUTPUTS else []


def output_step(nbytes: int) -> Step:
    """Outputs to where the request wants them, by a kernel."""
    return Step("outputs", transfer_kernel(nbytes), [("binding", 0, 0, 8), ("outputs", 0, 0, nbytes)])


def _pack(arrays: Mapping[str, Array]) -> tuple[dict[str, int], NDArray[np.uint8]]:
    offsets, end = {}, 0
    for name, array in arrays.items():
        offsets[name] = end
        end += ceil_div(array.nbytes, 256) * 256
    block = np.zeros(end, np.uint8)
    for name, array in arrays.items():
        block[offsets[name] : offsets[name] + array.nbytes] = array.reshape(-1).view(np.uint8)
    return offsets, block


def batches(steps: Sequence[Step]) -> list[list[Kernel]]:
    """The distinct kernels of a program, in the groups that are compiled together."""
    unique = list({step.kernel.name: step.kernel for step in steps}.values())
    return [unique[i : i + _BATCH] for i in range(0, len(unique), _BATCH)]


def build_program(program: Program, compile_sources: Compile = compile_all) -> GpuProgram:
    """Compiles a program's kernels, plain and preemptible. CompileError: no compiler, or it refused."""
    groups = batches(program.steps)
    kind = target_kind(program.target)
    codes = compile_sources([(kernel_source(group, kind), program.target) for group in groups])
    names = (" ".join(kernel.name for kernel in group) for group in groups)
    return assemble(program, dict(zip(names, codes, strict=True)))


def assemble(program: Program, codes: Mapping[str, bytes]) -> GpuProgram:
    """A program with its code objects, each by the names of its kernels. KeyError: a kernel is in none of them."""
    module = {name: number for number, names in enumerate(codes) for name in names.split()}
    built = GpuProgram(program.target, list(codes.values()), program.constants, program.workspace_bytes)
    for step in program.steps:
        kernel = step.kernel
        built.add_launch(
            step.name, kernel.name, module[kernel.name], kernel.blocks, kernel.threads, kernel.shared, kernel.units,
            step.arguments,
        )  # fmt: skip
    return built
