# SPDX-License-Identifier: Apache-2.0
"""A program's code as a resource keeps it, and such code as a program again: planned anew, code found by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from reefd._engine import GpuProgram
from reefd.resource import Resource, ResourceError
from reefd.resource.code import VERSION, Code, CodeFile, Facts, KernelCode, LaunchCode
from reefd.resource.read import code_file_name, processors, read_code

from .compile import compile_source, target_kind
from .compilers import compile_all
from .instance import Kernel
from .known_tiles import parse_tiles, tile_entries
from .lower import LowerError
from .notes import Resources, code_resources
from .occupancy import occupancy
from .program import Compile, Program, assemble, batches, plan_program
from .source import kernel_source, source_digest

_DEVICES = {"cuda": "cuda:sm_90", "hip": "hip:gfx906", "host": "host"}


def compile_shown(program: Program, progress: Callable[[int, int, str], None]) -> Compile:
    """One group after the other; told before each: how many kernels are done, of how many, and the first one's name."""
    groups = batches(program.steps)
    total = sum(map(len, groups))

    def compile_sources(sources: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        done = 0
        for group, (source, target) in zip(groups, sources, strict=True):
            progress(done, total, f"{target} {group[0].name}")
            done += len(group)
            yield compile_source(source, target)

    return compile_sources


def make(program: Program, *, tuned_on: str = "", compile_sources: Compile = compile_all) -> Code:
    """Compiles a program's kernels, noting what the compiler says. CompileError: there is none, or it refused."""
    groups = batches(program.steps)
    objects: dict[str, np.ndarray] = {}
    kernels: list[KernelCode] = []
    sources = [(kernel_source(group, target_kind(program.target)), program.target) for group in groups]
    for group, content in zip(groups, compile_sources(sources), strict=True):
        objects[" ".join(kernel.name for kernel in group)] = np.frombuffer(content, np.uint8)
        kernels += _facts(program.target, group, content)
    launches = [
        LaunchCode(step.operation, step.kernel.name, step.kernel.blocks, step.kernel.threads) for step in program.steps
    ]
    tiles = tile_entries(program.tiles)
    return Code(objects, CodeFile(VERSION, program.target, _sources(program), tuned_on, tiles, launches, kernels))


def _facts(target: str, group: list[Kernel], code: bytes) -> list[KernelCode]:
    """Of each kernel; none where kernels run on a processor of the machine."""
    noted = code_resources(target, code)

    def facts(kernel: Kernel, used: Resources) -> Facts:
        held, share = occupancy(target, kernel, used)
        shared = kernel.shared + used.local_bytes
        return Facts(used.vector_registers, used.scalar_registers, shared, used.scratch_bytes, held, share)

    return [
        KernelCode(kernel.name, facts(kernel, noted[kernel.name]), facts(kernel, noted[f"{kernel.name}_p"]))
        for kernel in group
        if noted
    ]


def plan(resource: Resource, code: CodeFile) -> Program:
    """The program that the code was made for. LowerError, ValueError: another release made it."""
    tiles = dict(parse_tiles(code.tiles))
    return plan_program(resource.model, resource.weights, code.processor, resource.model.precision, tiles)


def current(resource: Resource, code: CodeFile) -> bool:
    """Whether this release can load the code, and would make it from the same kernels."""
    try:
        program = plan(resource, code)
    except (LowerError, KeyError, TypeError, ValueError):
        return False
    return _sources(program) == code.sources


def processor_for(resource: Resource, target: str) -> str:
    """What a device takes code for. `target` "" (the driver does not tell): what there is code for, if that is one
    processor; else ""."""
    there = processors(resource)
    return there[0] if not target and len(there) == 1 else target


def load(resource: Resource, target: str) -> GpuProgram:
    """What a GPU device loads; `target` as in processor_for(). ResourceError says what is missing or damaged."""
    there, target = processors(resource), processor_for(resource, target)
    code = read_code(resource, target) if target in there else None
    if code is None:
        has = f"it has code for {', '.join(there)}" if there else "it has no GPU code"
        device = f"the device is a {target}" if target else "the driver does not say for what it takes code"
        wanted = _DEVICES[target_kind(target)] if target else "TARGET"
        raise ResourceError(resource.path, f"{device}; {has}: `reefctl compile --target {wanted}`")
    path = resource.path / code_file_name(target)
    try:
        program = plan(resource, code.file)
        if _sources(program) != code.file.sources:
            raise ResourceError(path, "made from the kernels of another release of reefd; compile it again")
        return assemble(program, _bytes(code.objects))
    except (LowerError, KeyError, TypeError, ValueError) as error:
        raise ResourceError(path, f"made by another release of reefd ({error}); compile it again") from None


def _sources(program: Program) -> str:
    return source_digest((step.kernel for step in program.steps), target_kind(program.target))


def _bytes(objects: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return {names: content.tobytes() for names, content in objects.items()}
