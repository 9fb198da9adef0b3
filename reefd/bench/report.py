# SPDX-License-Identifier: Apache-2.0
"""What a benchmark reports: cases in microseconds, ratios between them, and the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np


def quantile(values: Sequence[float] | np.ndarray, share: float) -> float:
    """The least of the values that `share` of them lie below: one that was measured, nothing between two."""
    ordered = np.sort(values)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))])


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. Times are round trips in microseconds; `n` is how many were measured."""

    name: str
    p50_us: float
    p99_us: float
    max_us: float
    n: int


def case(name: str, times_ns: np.ndarray) -> Case:
    """Sums up the round trips of one case, nanoseconds each."""
    p50, p99, most = (round(float(value) / 1000, 3) for value in np.percentile(times_ns, (50, 99, 100)))
    return Case(name, p50, p99, most, len(times_ns))


def host() -> dict[str, Any]:
    """The machine, as far as it explains a figure."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    throttle = next(iter(_lines("/proc/sys/kernel/sched_rt_runtime_us")), "")
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "virtual": any(line.startswith("flags") and " hypervisor" in line for line in _lines("/proc/cpuinfo")),
        "sched_rt_runtime_us": int(throttle) if throttle.lstrip("-").isdigit() else None,
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def print_report(
    cases: Sequence[Case], ratios: Mapping[str, float], notes: Sequence[str], *, as_json: bool,
    facts: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """A table and notes for people, or one JSON object with the facts."""
    machine = host()
    if as_json:
        entries = [asdict(entry) for entry in cases]
        print(json.dumps({"host": machine, **(facts or {}), "cases": entries, "ratios": dict(ratios)}))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("case", "p50 us", "p99 us", "max us", "n", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for entry in cases:
        times = (f"{value:,.2f}" for value in (entry.p50_us, entry.p99_us, entry.max_us))
        table.add_row(entry.name, *times, f"{entry.n:,}")
    console = Console()
    console.print(table)
    console.print()
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")
    for note in notes:
        console.print(note)
    console.print(f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}", style="dim")
