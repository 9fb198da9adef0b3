# SPDX-License-Identifier: Apache-2.0
"""A resource's code objects as a program that a GPU device loads: planned again here, code found by kernel name."""

import re

from reefd._engine import GpuProgram
from reefd.resource import Resource, ResourceError
from reefd.resource.read import code_name, read_code

from .compile import target_kind
from .lower import LowerError
from .notes import Resources, amd_resources, nvidia_resources, occupancy
from .program import Program, assemble, plan_program

_CODE = re.compile(r"code\.([a-z0-9_]{1,32})\.safetensors")
_DEVICES = {"cuda": "cuda:sm_90", "hip": "hip:gfx906", "host": "host"}


def targets(resource: Resource) -> list[str]:
    """The processors that a resource holds code for."""
    return sorted(match[1] for path in resource.path.iterdir() if (match := _CODE.fullmatch(path.name)))


def plan(resource: Resource, target: str) -> Program:
    """LowerError: a kernel has no GPU form."""
    return plan_program(resource.model, resource.weights, target, resource.model.precision)


def load(resource: Resource, target: str) -> GpuProgram:
    """What a GPU device loads. `target` "" (the driver does not tell): the only one there is. ResourceError says what
    is missing or damaged."""
    there = targets(resource)
    if not target and len(there) == 1:
        target = there[0]
    code = read_code(resource, target) if target in there else None
    if code is None:
        has = f"it has code for {', '.join(there)}" if there else "it has no GPU code"
        device = f"the device is a {target}" if target else "the driver does not say for what it takes code"
        wanted = _DEVICES[target_kind(target)] if target else "TARGET"
        raise ResourceError(resource.path, f"{device}; {has}: `reefctl compile --target {wanted}`")
    try:
        return assemble(plan(resource, target), {names: content.tobytes() for names, content in code.items()})
    except (LowerError, KeyError) as error:
        path = resource.path / code_name(target)
        raise ResourceError(path, f"made by another release of reefd ({error}); compile it again") from None


def kernel_facts(resource: Resource, target: str) -> dict[str, tuple[Resources, int]]:
    """What the compiler noted in the code of each entry point, and its occupancy: waves on one SIMD of an AMD GPU, 0 on
    others. ResourceError."""
    code = read_code(resource, target)
    if code is None:
        raise ResourceError(resource.path, f"it has no code for {target}")
    hip = target_kind(target) == "hip"
    noted: dict[str, Resources] = {}
    for content in code.values():
        noted |= (amd_resources if hip else nvidia_resources)(content.tobytes())
    facts = {}
    for step in plan(resource, target).steps:
        for entry in (step.kernel.name, f"{step.kernel.name}_p"):
            facts[entry] = (noted[entry], occupancy(step.kernel, noted[entry]) if hip else 0)
    return facts
