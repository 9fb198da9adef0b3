# SPDX-License-Identifier: Apache-2.0
"""The model compiler: an ONNX file becomes a resource folder.

    load.py      1  the file, constants folded, every shape known
    lower.py     2  ONNX operators become kernels (operators.py is the table, lowering/ the functions)
    simplify.py  3  the same with fewer kernels
    patterns.py     functions that were written as several nodes, found again: activations.py, normalization.py,
                    attention.py
    fuse.py      4  additions and activations move into the kernel before them
    layout.py    5  channels last inside; transposes only where they are needed
    memory.py    6  where each tensor lies
    emit.py      7  the schedule and the weights
    targets.py   8  code objects for GPUs, where asked for

Imports onnx, so the daemon never imports it.
"""

from reefd.compiler.driver import STAGES, Compiled, Options, Summary, compile_model, compile_to_memory
from reefd.compiler.errors import CompileError, Problem
from reefd.compiler.progress import Progress

__all__ = [
    "STAGES",
    "CompileError",
    "Compiled",
    "Options",
    "Problem",
    "Progress",
    "Summary",
    "compile_model",
    "compile_to_memory",
]
