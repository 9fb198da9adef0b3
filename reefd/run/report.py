# SPDX-License-Identifier: Apache-2.0
"""What `reefctl run` reports: distributions of the parts of a request's time, and warnings that say what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

_CPUS = Path("/sys/devices/system/cpu")
BEYOND = 10  # requests beyond a percentile that make it worth something
VARIATION = 0.1  # standard deviation of the compute time, of its mean
MOST_OTHER_LOAD = 0.1  # of all processors


class Distribution(msgspec.Struct, frozen=True):
    """Of one part of the time, in microseconds. Percentiles are interpolated linearly."""

    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float
    stdev: float


class Report(msgspec.Struct, frozen=True):
    """The parts of a request's time: queue (accepted to started), compute (started to finished, both by the engine's
    clock), the copies to and from the device, transport (the rest of latency: doorbell, wake-up, and the client)."""

    model: str
    device: str
    workers: int
    preemptible: bool
    in_flight: int
    warm_up_seconds: float
    requests: int
    seconds: float
    throughput: float  # requests a second
    latency: Distribution  # from the submission to the answer, in the client
    queue: Distribution
    compute: Distribution
    input_copy: Distribution
    output_copy: Distribution
    transport: Distribution
    host: dict[str, Any]
    notes: list[str]
    warnings: list[str]


def distribution(times_ns: np.ndarray) -> Distribution:
    """Of at least one time."""
    times = np.asarray(times_ns, np.float64) / 1000
    low, median, p90, p95, p99, p99_9, high = np.percentile(times, (0, 50, 90, 95, 99, 99.9, 100))
    values = (low, times.mean(), median, p90, p95, p99, p99_9, high, times.std())
    return Distribution(*(round(float(value), 3) for value in values))


def warnings(
    *, requests: int, compute: Distribution, workers: int, cpus: int, governors: set[str], other_load: float
) -> list[str]:
    """What makes the figures worth less than they look, and what to do about it."""
    found = []
    if requests < 100 * BEYOND:
        found.append(
            f"p99 rests on {max(1, requests // 100)} of {requests} requests, p99.9 on fewer: "
            f"for {BEYOND} beyond p99 measure {100 * BEYOND:,}, with --iterations or a longer --duration"
        )
    elif requests < 1000 * BEYOND:
        found.append(
            f"p99.9 rests on {requests // 1000} of {requests} requests: for {BEYOND} measure {1000 * BEYOND:,}, "
            "with --iterations or a longer --duration"
        )
    slow = sorted(governors - {"performance"})
    if slow:
        found.append(
            f"the processors' frequency follows the load (governor {', '.join(slow)}): set it with "
            "`cpupower frequency-set -g performance`"
        )
    if workers > cpus:
        found.append(f"{workers} workers share {cpus} processors: use --workers {cpus} or fewer")
    if compute.mean > 0 and compute.stdev / compute.mean > VARIATION:
        found.append(
            f"compute time varies by {compute.stdev / compute.mean:.0%} (standard deviation): compare medians, measure "
            "longer, keep other programs and hypervisors away"
        )
    if other_load > MOST_OTHER_LOAD:
        found.append(f"other programs used {other_load:.0%} of the processors meanwhile: stop them and measure again")
    return found


def governors() -> set[str]:
    """How the processors that this process may use choose their frequency; empty where nobody tells."""
    found = set()
    for cpu in os.sched_getaffinity(0):
        try:
            found.add((_CPUS / f"cpu{cpu}/cpufreq/scaling_governor").read_text().strip())
        except OSError:
            continue
    return found


def show(report: Report) -> None:
    """The table, notes and warnings for people."""
    from rich.console import Console
    from rich.table import Table

    names = Distribution.__struct_fields__[:-1]
    table = Table("ms", *(name.replace("_", ".") for name in names), box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for part in ("latency", "queue", "compute", "input_copy", "output_copy", "transport"):
        values = getattr(report, part)
        table.add_row(part.replace("_", " "), *(f"{getattr(values, name) / 1000:,.3f}" for name in names))
    console = Console(highlight=False)
    console.print(
        f"{report.model} on {report.device}, {report.workers} workers, "
        f"{'preemptible' if report.preemptible else 'plain'} kernels, {report.in_flight} in flight"
    )
    console.print(
        f"{report.requests:,} requests in {report.seconds:.2f} s: {report.throughput:,.2f} a second "
        f"(after {report.warm_up_seconds:g} s of warm-up)\n"
    )
    console.print(table)
    console.print()
    for note in report.notes:
        console.print(note, style="dim", soft_wrap=True)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True)
