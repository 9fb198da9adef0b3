# SPDX-License-Identifier: Apache-2.0
"""reefctl compile: an ONNX file becomes a resource folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from reefd.compiler import Summary

_NEEDS = "compiling needs the packages onnx and numpy; please run: pip install 'reefd[compile]'"


def compile_model(
    model: Annotated[Path, Parameter(help="the ONNX file")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="the resource folder; replaced when it exists")],
    precision: Annotated[
        Literal["fp32", "fp16"], Parameter(help="fp16: weights are stored as halves, and GPUs compute with halves")
    ] = "fp32",
    shape: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="fixes a dynamic input, e.g. --shape image=1x3x224x224 (repeatable)"),
    ] = (),
    target: Annotated[str, Parameter(help="what to make code for, e.g. cpu,cuda:sm_90,hip:gfx906")] = "cpu",
    name: Annotated[str, Parameter(help="the model's name; default: the folder's")] = "",
    if_stale: Annotated[bool, Parameter(help="do nothing when the folder is up to date", negative="")] = False,
    quiet: Annotated[bool, Parameter(help="print problems only", negative="")] = False,
) -> int:
    """Compile an ONNX file into a resource folder.

    Prints every problem of the model at once, with node, operator and attribute. Exit code 1 when there is one. A
    resource runs on the CPU whatever its targets are.
    """
    try:
        from reefd.compiler import CompileError, Options
        from reefd.compiler import compile_model as compile_file
        from reefd.compiler.targets import parse_targets
    except ModuleNotFoundError as error:
        print(f"{error}: {_NEEDS}", file=sys.stderr)
        return 1
    from reefd.resource import ResourceError

    try:
        processors = parse_targets(target.split(","))
        shapes = dict(map(parse_shape, shape))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    options = Options(shapes, "float16" if precision == "fp16" else "float32", processors)
    show = _Bar(quiet)
    try:
        with show.bar:
            summary = compile_file(model, output, options=options, name=name, only_if_stale=if_stale, progress=show)
    except (CompileError, ResourceError) as error:
        print(error, file=sys.stderr)
        return 1
    if not quiet:
        print(_describe(summary, output))
    return 0


def parse_shape(text: str) -> tuple[str, list[int]]:
    """'image=1x3x224x224' -> ('image', [1, 3, 224, 224]). ValueError says what is expected."""
    name, separator, extents = text.rpartition("=")
    try:
        shape = [int(extent) for extent in extents.split("x")] if extents else []
    except ValueError:
        shape = [-1]
    if not separator or not name or any(extent < 1 for extent in shape):
        raise ValueError(f"--shape {text}: expected name=1x3x224x224")
    return name, shape


class _Bar:
    """A compilation's Progress on a terminal: the stage, how far it is, and the node or kernel in work. Silent where
    the output goes elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.fields[place]:>5} {task.description:<8}"), BarColumn(), TaskProgressColumn(),
            TimeElapsedColumn(), TextColumn("{task.fields[what]}", markup=False),
        )  # fmt: skip
        off = quiet or not sys.stderr.isatty()
        self.bar: Bar = Progress(*columns, transient=True, disable=off, console=Console(stderr=True))
        self.task = self.bar.add_task("", total=None, what="", place="")
        self.stages: Sequence[str] = ()

    def stage(self, name: str) -> None:
        from reefd.compiler import STAGES

        place = f"{STAGES.index(name) + 1}/{len(STAGES)}"
        self.bar.reset(self.task, start=False, description=name, total=None, what="", place=place)
        self.bar.start_task(self.task)

    def step(self, done: int, total: int, what: str) -> None:
        self.bar.update(self.task, completed=done, total=total, what=what[:60])


def _describe(summary: "Summary", folder: Path) -> str:
    if summary.fresh:
        return f"{folder}: up to date ({summary.kernels} kernels)"
    total = sum(summary.seconds.values())
    slowest = max(summary.seconds, key=lambda stage: summary.seconds[stage])
    code = "".join(f", code for {name} {size(count)}" for name, count in summary.code_bytes.items())
    return (
        f"{folder}: {summary.nodes} nodes became {summary.kernels} kernels, weights {size(summary.weight_bytes)}, "
        f"activations {size(summary.arena_bytes)} at peak ({size(summary.live_bytes)} at least){code}, "
        f"{total:.2f} s (most of it: {slowest})"
    )


def size(count: int) -> str:
    """Bytes for people."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
