# SPDX-License-Identifier: Apache-2.0
"""reefctl inspect: the kernels of a resource and what each costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from reefd.cli_numbers import Seconds, Workers

if TYPE_CHECKING:
    from reefd.resource import Resource


def inspect(
    folder: Annotated[Path, Parameter(help="a resource folder, as `reefctl compile` makes it")],
    /,
    *,
    time: Annotated[bool, Parameter(help="run the model and measure its kernels")] = True,
    workers: Annotated[Workers, Parameter(help="worker threads; 0: one for each CPU")] = 0,
    seconds: Annotated[Seconds, Parameter(help="how long to measure")] = 1.0,
    plot: Annotated[Path | None, Parameter(help="a PNG file to write the figure to")] = None,
    code: Annotated[bool, Parameter(help="also the kernels of each GPU's code", negative="")] = False,
    json: Annotated[bool, Parameter(help="one JSON object instead of a table", negative="")] = False,
) -> int:
    """Show a compiled model's kernels with FLOPs, bytes, time and share, and its activation memory."""
    from reefd import _engine, resource
    from reefd.inspect import report

    try:
        loaded = resource.read(folder)
        times, how = _times(loaded, workers, seconds) if time else (None, "")
        found = report.inspect(loaded, times, how)
        if plot is not None:
            from reefd.inspect import plot as figure

            try:
                figure.plot(loaded, found, plot)
            except ModuleNotFoundError as error:
                print(f"{error}: {figure.NEEDS}", file=sys.stderr)
                return 1
    except (resource.ResourceError, _engine.ModelError, _engine.EngineError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if json:
        import msgspec

        print(msgspec.json.encode(found).decode())
    else:
        report.show(found, with_code=code)
    return 0


def _times(loaded: Resource, workers: int, seconds: float) -> tuple[list[float], str]:
    """Of each kernel, nanoseconds; and with what they were measured."""
    from reefd import feeds
    from reefd.profile import measure

    times, device = measure.kernel_times(loaded, feeds.random(loaded, 1), workers=workers, seconds=seconds)
    info = device.info
    return [float(time) for time in times], f"{info['compute_units']} workers, {info['detail']}, medians"
