# SPDX-License-Identifier: Apache-2.0
"""Stage 8: code objects for the GPUs that were asked for. The CPU's kernels are part of the engine and need none.

A resource's schedule and weights serve every target; what a GPU needs besides is `code.<target>.safetensors`, one array
of bytes for each group of kernels that was compiled together, named by the kernels in it, and `code.<target>.json`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from reefd.compiler.errors import CompileError, Problem
from reefd.compiler.progress import Progress
from reefd.gpu.target import TARGETS
from reefd.resource.code import Code
from reefd.resource.schema import ModelFile

# What a user writes: the device's name in reefd, and the processor as its vendor calls it.
_DEVICES = {"cuda": "sm_", "hip": "gfx"}
_ALIASES = {"sm_90": "sm_90a"}  # the same processor; without the letter its newest instructions are left out


def known_targets() -> list[str]:
    gpus = [f"{device}:{name}" for device, prefix in _DEVICES.items() for name in TARGETS if name.startswith(prefix)]
    return ["cpu", *gpus]


def parse_targets(targets: Sequence[str]) -> list[str]:
    """The GPU processors among targets such as `cpu`, `cuda:sm_90` or `hip:gfx906`. ValueError: one that is unknown."""
    processors = []
    for target in targets:
        device, _, name = target.partition(":")
        name = _ALIASES.get(name, name)
        if target == "cpu":
            continue
        if device not in _DEVICES or not name.startswith(_DEVICES[device]) or name not in TARGETS:
            raise ValueError(f"unknown target {target!r}; there are: {', '.join(known_targets())}")
        processors.append(name)
    return list(dict.fromkeys(processors))


def build_code(
    model: ModelFile, weights: Mapping[str, np.ndarray], processor: str, path: str, progress: Progress
) -> Code:
    """Plans and compiles a model's kernels for one processor. CompileError: a kernel that has no GPU form, or a
    compiler that is missing or refuses."""
    from reefd.gpu.compile import CompileError as RefusedError
    from reefd.gpu.lower import LowerError
    from reefd.gpu.program import plan_program
    from reefd.gpu.stored import compile_shown, make

    try:
        program = plan_program(model, weights, processor, model.precision)
        return make(program, compile_sources=compile_shown(program, progress.step))
    except (LowerError, RefusedError) as error:
        raise CompileError(path, [Problem(f"target {processor}: {error}")]) from None
