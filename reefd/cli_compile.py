# SPDX-License-Identifier: Apache-2.0
"""reefctl compile: an ONNX file becomes a resource folder."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console

    from reefd.compiler import Summary

_NEEDS = "compiling needs the packages onnx and numpy; please run: pip install 'reefd[compile]'"


def compile_model(
    model: Annotated[Path, Parameter(help="the ONNX file")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="the resource folder; replaced when it exists")],
    shape: Annotated[
        tuple[str, ...], Parameter(help="fixes a dynamic input, e.g. --shape image=1x3x224x224 (repeatable)")
    ] = (),
    name: Annotated[str, Parameter(help="the model's name; default: the folder's")] = "",
    if_stale: Annotated[bool, Parameter(help="do nothing when the folder is up to date", negative="")] = False,
    quiet: Annotated[bool, Parameter(help="print problems only", negative="")] = False,
) -> int:
    """Compile an ONNX file into a resource folder.

    Prints every problem of the model at once, with node, operator and attribute. Exit code 1 when there is one.
    """
    try:
        from reefd.compiler import STAGES, CompileError
        from reefd.compiler import compile_model as compile_file
    except ModuleNotFoundError as error:
        print(f"{error}: {_NEEDS}", file=sys.stderr)
        return 1
    from reefd.resource import ResourceError

    try:
        shapes = dict(map(parse_shape, shape))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    show = None if quiet else _Progress(len(STAGES))
    try:
        with show or nullcontext():
            progress: Callable[[str], None] | None = show.stage if show else None
            summary = compile_file(model, output, shapes=shapes, name=name, only_if_stale=if_stale, progress=progress)
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


class _Progress:
    """A bar by stage on a terminal; nothing where the output goes elsewhere."""

    def __init__(self, stages: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:>9}"), BarColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, transient=True, disable=not sys.stderr.isatty(), console=_stderr())
        self.task = self.bar.add_task("", total=stages)

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def stage(self, name: str) -> None:
        self.bar.update(self.task, description=name, advance=1)


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _describe(summary: "Summary", folder: Path) -> str:
    if summary.fresh:
        return f"{folder}: up to date ({summary.kernels} kernels)"
    total = sum(summary.seconds.values())
    slowest = max(summary.seconds, key=lambda stage: summary.seconds[stage])
    return (
        f"{folder}: {summary.nodes} nodes became {summary.kernels} kernels, weights {size(summary.weight_bytes)}, "
        f"activations {size(summary.arena_bytes)} at peak ({size(summary.live_bytes)} at least), "
        f"{total:.2f} s (most of it: {slowest})"
    )


def size(count: int) -> str:
    """Bytes for people."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
