# SPDX-License-Identifier: Apache-2.0
"""The figure: the kernels' times over the schedule, their rates over their intensity, and the live activations."""

from __future__ import annotations

from pathlib import Path

from reefd.inspect import memory
from reefd.inspect.report import Inspection
from reefd.resource import Resource

NEEDS = "the figure needs the package matplotlib; please run: pip install 'reefd[plot]'"


def plot(resource: Resource, found: Inspection, path: Path) -> None:
    """Writes a PNG. ModuleNotFoundError: no matplotlib. OSError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    times, rates, live = figure.subplots(3, 1)
    places = range(len(found.kernels))
    kinds = sorted({kernel.op for kernel in found.kernels})
    timed = bool(found.timed_with)
    for number, kind in enumerate(kinds):
        chosen = [place for place in places if found.kernels[place].op == kind]
        heights = [found.kernels[p].time_us if timed else found.kernels[p].flops / 1e6 for p in chosen]
        times.bar(chosen, heights, width=1.0, color=f"C{number % 10}", label=kind)
        busy = [p for p in chosen if found.kernels[p].intensity > 0]
        rates.scatter(
            [found.kernels[p].intensity for p in busy],
            [found.kernels[p].gflops if timed else found.kernels[p].flops / 1e9 for p in busy],
            s=14,
            color=f"C{number % 10}",
        )
    times.set(title=found.model, xlabel="kernel", ylabel="us" if timed else "MFLOP")
    times.legend(fontsize="small", ncols=4)
    rates.set(xlabel="FLOP for each byte", ylabel="GFLOP/s" if timed else "GFLOP", xscale="log", yscale="log")
    live.fill_between(places, [size / 1e6 for size in memory.live_bytes(resource.model)], step="mid")
    live.axhline(found.arena_bytes / 1e6, color="black", linewidth=1, linestyle="--")
    live.set(xlabel="kernel", ylabel="MB alive (dashed: arena)")
    figure.savefig(path, format="png", dpi=110)
