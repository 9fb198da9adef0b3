# SPDX-License-Identifier: Apache-2.0
"""reefctl profile: what a resource costs on this machine, written into its folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from reefd.cli_numbers import Seconds, Share, Workers

MOST_OTHER_LOAD = 0.1  # of all processors


def profile(
    folder: Annotated[Path, Parameter(help="a resource folder, as `reefctl compile` makes it")],
    /,
    *,
    device: Annotated[
        Literal["cpu", "cuda", "hip"], Parameter(help="what to measure on; a GPU: code for it is in the folder")
    ] = "cpu",
    tune: Annotated[
        bool, Parameter(help="choose the GPU's tiles by measuring, and compile its code with them", negative="")
    ] = False,
    workers: Annotated[
        Workers, Parameter(help="cpu: compute units of the daemon (its --workers); 0: one for each CPU")
    ] = 0,
    bound: Annotated[Share, Parameter(help="share of its time that the model may lose to best-effort work")] = 0.02,
    seconds: Annotated[Seconds, Parameter(help="how long to measure with each number of compute units")] = 1.0,
    allow_busy: Annotated[
        bool, Parameter(help="keep what was measured while other programs used the processors", negative="")
    ] = False,
    quiet: Annotated[bool, Parameter(help="print problems only", negative="")] = False,
) -> int:
    """Measure a compiled model on this machine, and write profile.DEVICE.json into its folder.

    It holds how many compute units best-effort work may use beside the model and, on the CPU, of each kernel what
    preempt_bound in a manifest is compared with. Stop the daemon first: whatever else runs is measured too.

    With --tune and a GPU: measure which tile is the fastest for each convolution and matrix product of the model on
    that GPU, and put code made with them into the folder.
    """
    if tune and device == "cpu":
        print("--tune is for GPUs: --tune --device cuda, or hip", file=sys.stderr)
        return 2
    if tune:
        return _tune(folder, device, quiet)
    from reefd import _engine, resource
    from reefd.profile import report
    from reefd.profile.load import OtherLoad

    try:
        found = resource.read(folder)
        with _Progress(quiet) as progress, OtherLoad() as load:
            if device == "cpu":
                from reefd.profile import measure

                made = measure.profile(found, workers=workers, bound=bound, seconds=seconds, progress=progress.show)
            else:
                from reefd.profile import gpu

                opened = _engine.GpuDevice(device)
                made = gpu.profile(found, opened, device, bound=bound, seconds=seconds, progress=progress.show)
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
        print(report.describe(folder, made))
    return 0


def _tune(folder: Path, kind: str, quiet: bool) -> int:
    from reefd import _engine, resource
    from reefd.gpu.compile import CompileError
    from reefd.gpu.compilers import Compilers
    from reefd.gpu.lower import LowerError
    from reefd.gpu.stored import processor_for
    from reefd.gpu.tune import Tuner, tune

    try:
        found = resource.read(folder)
        device = _engine.GpuDevice(kind)  # type: ignore[arg-type]
        processor = processor_for(found, device.info["target"])
        if not processor:
            raise ValueError(
                f"{folder}: the driver does not say for what it takes code; `reefctl compile --target` says it first"
            )
        with _Progress(quiet) as progress, Compilers() as compilers:
            made = tune(found, Tuner(device, processor, compile_sources=compilers, progress=progress.show))
        resource.write_code(found, processor, made.code)
    except (
        resource.ResourceError, _engine.ModelError, _engine.EngineError, CompileError, LowerError, ValueError, OSError,
    ) as error:  # fmt: skip
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit):
        print(f"{folder}: interrupted; it keeps the tiles that it had", file=sys.stderr)
        raise
    if not quiet:
        print(
            f"{folder}: {made.measured} tiles of {made.shapes} products measured on {device.info['name']}: "
            f"{made.before_ns / 1e3:.1f} us before, {made.after_ns / 1e3:.1f} us with those found; the faster are kept"
        )
    return 0


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
