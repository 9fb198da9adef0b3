# SPDX-License-Identifier: Apache-2.0
"""reefctl profile: what a resource costs on this machine, written into its folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from reefd.cli_numbers import Seconds, Share, Workers

if TYPE_CHECKING:
    from reefd.resource import Profile

MOST_OTHER_LOAD = 0.1  # of all processors


def profile(
    folder: Annotated[Path, Parameter(help="a resource folder, as `reefctl compile` makes it")],
    /,
    *,
    device: Annotated[
        Literal["cpu", "cuda", "hip"], Parameter(help="what to measure on; GPUs only with --tune")
    ] = "cpu",
    tune: Annotated[
        bool, Parameter(help="choose the GPU's tiles by measuring, and compile its code with them", negative="")
    ] = False,
    workers: Annotated[Workers, Parameter(help="compute units of the daemon (its --workers); 0: one for each CPU")] = 0,
    bound: Annotated[Share, Parameter(help="share of its time that the model may lose to best-effort work")] = 0.02,
    seconds: Annotated[Seconds, Parameter(help="how long to measure with each number of compute units")] = 1.0,
    allow_busy: Annotated[
        bool, Parameter(help="keep what was measured while other programs used the processors", negative="")
    ] = False,
    quiet: Annotated[bool, Parameter(help="print problems only", negative="")] = False,
) -> int:
    """Measure a compiled model's kernels on this machine, and write profile.DEVICE.json into its folder.

    It holds what preempt_bound in a manifest is compared with, and how many compute units best-effort work may use
    beside the model. Stop the daemon first: whatever else runs is measured too.

    With --tune and a GPU: measure which tile is the fastest for each convolution and matrix product of the model on
    that GPU, and put code made with them into the folder.
    """
    if (device != "cpu") != tune:
        print("--tune is for GPUs, and GPUs are only tuned: --tune --device cuda, or hip", file=sys.stderr)
        return 2
    if tune:
        return _tune(folder, device, quiet)
    from reefd import _engine, resource
    from reefd.profile import measure
    from reefd.profile.load import OtherLoad

    try:
        found = resource.read(folder)
        with OtherLoad() as load, _Progress(quiet) as progress:
            made = measure.profile(found, workers=workers, bound=bound, seconds=seconds, progress=progress.show)
        if load.share > MOST_OTHER_LOAD and not allow_busy:
            print(
                f"{folder}: other programs used {load.share:.0%} of the processors meanwhile, so the figures are not "
                "the model's: stop them and run this again, or take the figures with --allow-busy",
                file=sys.stderr,
            )
            return 1
        resource.write_profile(found, made)
    except (resource.ResourceError, _engine.ModelError, _engine.EngineError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if not quiet:
        print(describe(folder, made))
    return 0


def _tune(folder: Path, kind: str, quiet: bool) -> int:
    from reefd import _engine, resource
    from reefd.gpu.compile import CompileError
    from reefd.gpu.lower import LowerError
    from reefd.gpu.tune import Tuner, tune

    try:
        found = resource.read(folder)
        device = _engine.GpuDevice(kind)  # type: ignore[arg-type]
        with _Progress(quiet) as progress:
            made = tune(found, Tuner(device, device.info["target"]), progress.show)
        resource.write_code(found, device.info["target"], made.code)
    except (
        resource.ResourceError, _engine.ModelError, _engine.EngineError, CompileError, LowerError, ValueError, OSError,
    ) as error:  # fmt: skip
        print(error, file=sys.stderr)
        return 1
    if not quiet:
        print(
            f"{folder}: {made.measured} tiles of {made.shapes} products measured on {device.info['name']}: "
            f"{made.before_ns / 1e3:.1f} us before, {made.after_ns / 1e3:.1f} us with those found; the faster are kept"
        )
    return 0


def describe(folder: Path, profile: Profile) -> str:
    """The profile in a few lines."""
    lines = [f"{folder}: {len(profile.kernels)} kernels on {profile.machine.processor}, {profile.machine.kernels}"]
    for count, column in zip(profile.units, range(len(profile.units)), strict=True):
        total = sum(kernel.time_ns[column] for kernel in profile.kernels)
        lines.append(f"  {count} compute unit{'s' if count > 1 else ''}: {total / 1e6:.3f} ms")
    longest = profile.longest()
    if longest is not None:
        checks = max(profile.kernels, key=lambda kernel: kernel.check_ns)
        lines.append(f"  longest between check points: {checks.check_ns / 1e3:.1f} us, {checks.name}")
        blocks = max(profile.kernels, key=lambda kernel: kernel.block_ns)
        lines.append(f"  longest block: {blocks.block_ns / 1e3:.1f} us, {blocks.name}")
        copies = max(profile.kernels, key=lambda kernel: kernel.copy_ns)
        if copies.copy_ns:
            lines.append(f"  longest copy of a unit: {copies.copy_ns / 1e3:.1f} us, {copies.name}")
        lines.append(f"  can keep preempt_bound: {-(-longest.bound_ns // 1000)}us")
    lines.append(f"  {describe_padding(profile)}")
    return "\n".join(lines)


def describe_padding(profile: Profile) -> str:
    """The padding plan in a line."""
    whole = given = first = 0
    for segment in profile.padding.segments:
        part = sum(kernel.time_ns[-1] for kernel in profile.kernels[first : segment.last])
        whole += part * profile.machine.compute_units
        given += part * segment.units
        first = segment.last
    share = given / whole if whole else 0.0
    return (
        f"beside it, best-effort work may use {share:.1%} of the device in {len(profile.padding.segments)} segments, "
        f"for {profile.padding.loss:.2%} of its time"
    )


class _Progress:
    """A bar on a terminal; nothing where the output goes elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        hidden = quiet or not sys.stderr.isatty()
        self._bar = Progress(*columns, transient=True, disable=hidden, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, what: str, share: float) -> None:
        self._bar.update(self._task, description=what, completed=share)
