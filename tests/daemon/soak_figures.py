# SPDX-License-Identifier: Apache-2.0
"""What a soak found: judged, put into words and plotted.

    python -m tests.daemon.soak_figures FOLDER    judges and plots again what lies there, of an interrupted run too

Rows of `samples` are taken all the time, those of `rests` when nobody is there but the clients that stay (soak.py).
"""

from __future__ import annotations

import csv
import itertools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
EXACT = ("descriptors", "regions", "records")
RSS_SLACK_KIB = 2048
MIN_RESTS = 6  # of one life, for a slope


def summary(seconds: Sequence[Row]) -> dict[str, float]:
    """Of a client's seconds: the median of their medians and of their 99th percentiles, and the longest of all."""
    if not seconds:
        return {"p50_us": float("nan"), "p99_us": float("nan"), "max_us": float("nan")}
    return {
        "p50_us": statistics.median(second["p50_us"] for second in seconds),
        "p99_us": statistics.median(second["p99_us"] for second in seconds),
        "max_us": max(second["max_us"] for second in seconds),
    }


def longest_life(rests: Sequence[Row]) -> list[Row]:
    """The rests of the daemon that lived longest."""
    lives: dict[int, list[Row]] = {}
    for rest in rests:
        lives.setdefault(rest["life"], []).append(rest)
    return max(lives.values(), key=len, default=[])


def growth(rows: Sequence[Row], column: str) -> tuple[float, float]:
    """From the first third to the last third of the rows, without the first quarter, where everything warms up.

    Returns (by how much, by how much in an hour)."""
    warm = rows[len(rows) // 4 :]
    third = max(1, len(warm) // 3)
    first, last = warm[:third], warm[-third:]
    more = statistics.median(row[column] for row in last) - statistics.median(row[column] for row in first)
    seconds = statistics.median(row["seconds"] for row in last) - statistics.median(row["seconds"] for row in first)
    return more, more * 3600 / seconds if seconds else 0.0


def leaks(rests: Sequence[Row]) -> list[str]:
    """What was not given back. Counts are exactly those of the first rest; memory may grow by RSS_SLACK_KIB."""
    if not rests:
        return ["nothing was measured"]
    found = []
    for column in (name for name in rests[0] if name in EXACT or name.endswith("_descriptors")):
        others = [row for row in rests if row[column] != rests[0][column]]
        if others:
            worst = max(others, key=lambda row: abs(row[column] - rests[0][column]))
            found.append(
                f"{column} at rest: {rests[0][column]} at first, {worst[column]} after {worst['seconds']} s,"
                f" another number than at first {len(others)} times"
            )
    life = longest_life(rests)
    if len(life) >= MIN_RESTS:
        more, _ = growth(life, "rss_kib")
        if more > RSS_SLACK_KIB:
            found.append(f"the daemon's memory at rest grew by {more:.0f} KiB in one life")
        for column in ("threads", "mappings"):
            more, _ = growth(life, column)
            if more > 2:
                found.append(f"{column} at rest grew by {more:.0f} in one life")
    for column in (name for name in rests[0] if name.endswith("_rss_kib")):
        more, _ = growth(rests, column)
        if len(rests) >= MIN_RESTS and more > RSS_SLACK_KIB:
            found.append(f"{column} of a client that stayed grew by {more:.0f} KiB")
    return found


def lines(samples: Sequence[Row], rests: Sequence[Row]) -> list[str]:
    """For people."""
    life = longest_life(rests)
    told = []
    if len(life) >= MIN_RESTS:
        more, hourly = growth(life, "rss_kib")
        hours = (life[-1]["seconds"] - life[0]["seconds"]) / 3600
        told.append(
            f"one daemon for {hours * 60:.0f} minutes, at rest {len(life)} times:"
            f" {life[-1]['rss_kib']} KiB resident at last, {more:+.0f} KiB ({hourly:+.0f} KiB an hour),"
            f" {life[-1]['descriptors']} descriptors, {life[-1]['threads']} threads"
        )
    for name, words in (("rt", "real-time (iris, 50 a second)"), ("be", "best effort (face_detector, 2 in flight)")):
        calm = [row for row in samples if row[f"{name}_p50_us"] == row[f"{name}_p50_us"]]
        if calm:
            half, most = (statistics.median(row[f"{name}_{key}"] for row in calm) for key in ("p50_us", "p99_us"))
            told.append(f"{words}: median of the samples' p50 {half:.0f} us, of their p99 {most:.0f} us")
    return told


def plot(samples: Sequence[Row], rests: Sequence[Row], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(4, sharex=True, figsize=(10, 10), layout="constrained")
    memory, held, rt, be = axes
    minutes = [row["seconds"] / 60 for row in samples]
    at_rest = [row["seconds"] / 60 for row in rests]

    def draw(axis: Any, column: str, label: str, colour: str) -> None:
        axis.plot(minutes, [row[column] for row in samples], label=label, color=colour, linewidth=0.8)

    draw(memory, "rss_mib", "resident", "tab:blue")
    memory.plot(at_rest, [row["rss_kib"] / 1024 for row in rests], "o", ms=3, color="tab:red", label="at rest")
    draw(memory, "shm_mib", "shared memory of sessions", "tab:green")
    memory.set_ylabel("MiB")
    draw(held, "descriptors", "descriptors", "tab:blue")
    held.plot(at_rest, [row["descriptors"] for row in rests], "o", ms=3, color="tab:red", label="at rest")
    draw(held, "sessions", "sessions", "tab:green")
    held.set_ylabel("count")
    for axis, name, words in ((rt, "rt", "real time"), (be, "be", "best effort")):
        for key, colour in (("p50_us", "tab:blue"), ("p99_us", "tab:orange"), ("max_us", "lightgray")):
            draw(axis, f"{name}_{key}", f"{words} {key.removesuffix('_us')}", colour)
        axis.set_yscale("log")
        axis.set_ylabel("us")
    for axis in axes:
        for row, following in itertools.pairwise(samples):
            if row["storm"]:
                axis.axvspan(row["seconds"] / 60, following["seconds"] / 60, color="tab:red", alpha=0.06, linewidth=0)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper right", fontsize="small", ncols=3)
        low, high = axis.get_ylim()
        logarithmic = axis.get_yscale() == "log"
        axis.set_ylim(low if logarithmic else 0, high * 4 if logarithmic else high * 1.25)  # room for the legend
    memory.set_title("reefd under everything at once; shaded: daemons are killed and restarted too")
    be.set_xlabel("minutes")
    figure.savefig(path, dpi=75)


def read(path: Path) -> list[Row]:
    with path.open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def main() -> int:
    folder = Path(sys.argv[1])
    samples, rests = read(folder / "soak.csv"), read(folder / "rest.csv")
    plot(samples, rests, folder / "soak.png")
    faults = leaks(rests)
    print(*lines(samples, rests), *faults or ["nothing leaked"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
