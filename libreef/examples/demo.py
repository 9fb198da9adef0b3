# SPDX-License-Identifier: Apache-2.0
"""The demo: a pedestrian detector (C, real-time) and a driver-fatigue detector (Python, best-effort) share one daemon.

    make demo, or: python demo.py [--seconds 10] [--alone 5] [--device cpu|cuda|hip]

Starts reefd with an instance, a socket and manifests of its own, so that it meets no other daemon; runs both programs
side by side, then the real-time one alone. Leaves pictures and report.json in build/demo, and nothing else.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import draw
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

EXAMPLES = Path(__file__).resolve().parent
ROOT = EXAMPLES.parent.parent
PICTURE = ROOT / "resource/astronaut.png"
OBSTACLE = ROOT / "build/c/libreef/examples/obstacle"
RESULTS = ROOT / "build/demo"
PR_SET_PDEATHSIG = 1


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


@contextmanager
def running(
    command: list[str | Path], environment: dict[str, str], output: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is stopped on leaving, however that happens, and that does not survive this one."""
    libc = ctypes.CDLL(None)
    with ExitStack() as stack:
        sink = stack.enter_context(output.open("wb")) if output else None
        process = subprocess.Popen(
            command, env=environment, stdout=sink, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def check(process: subprocess.Popen[bytes], name: str) -> None:
    """Raises DemoError if a process ended with an error."""
    if process.poll():
        raise DemoError(f"{name} ended with code {process.returncode}; its own words are above")


def wait_until(there: Path, processes: dict[str, subprocess.Popen[bytes]], seconds: float = 60) -> None:
    """Waits for a socket to exist or for a file to get its first line, while every process lives."""
    end = time.monotonic() + seconds
    while not (there.is_socket() or (there.is_file() and there.stat().st_size > 0)):
        for name, process in processes.items():
            if process.poll() is not None:
                raise DemoError(f"{name} ended with code {process.returncode}; its own words are above")
        if time.monotonic() > end:
            raise DemoError(f"{there} did not appear within {seconds:.0f} s")
        time.sleep(0.05)


def lines(path: Path) -> list[dict[str, Any]]:
    """One JSON object a line; a last line that was cut off is left out."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def latency(frames: list[dict[str, Any]]) -> dict[str, float | int]:
    """Percentiles of the frames that were answered, and how many were not answered in time."""
    answered = [frame["latency_ms"] for frame in frames if frame["status"] == 0]
    if not answered:
        raise DemoError("obstacle got no answer at all")
    p50, p99, most = (round(float(value), 3) for value in np.percentile(answered, (50, 99, 100)))
    missed = sum(frame["missed"] for frame in frames)
    return {"p50_ms": p50, "p99_ms": p99, "max_ms": most, "frames": len(frames), "missed": missed}


def drive(stack: ExitStack, options: argparse.Namespace, say: Console) -> None:
    """Runs all processes; their output is in RESULTS afterwards."""
    runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reefd-demo-")))
    environment = os.environ | {"REEF_SOCKET": str(runtime / "reef.sock")}
    frame = runtime / "frame.ppm"
    Image.open(PICTURE).convert("RGB").save(frame)
    # Nobody would start the next daemon: a machine that is busy with a build is no stuck device.
    (runtime / "reefd.yaml").write_text("device_timeout: 30s\n")
    reefd: list[str | Path] = [sys.executable, "-m", "reefd", "--config", runtime / "reefd.yaml", "--strict"]
    reefd += ["--instance", f"demo-{os.getpid()}"]
    reefd += ["--runtime-dir", runtime, "--manifest-dir", EXAMPLES / "manifests"]
    reefd += ["--resource-dir", ROOT / "build/resource", "--device", options.device, "--log-level", "warning"]
    daemon = stack.enter_context(running(reefd, environment))
    wait_until(runtime / "reef.sock", {"reefd": daemon})

    say.print(f"Both programs side by side for {options.seconds} seconds ...")
    watching: list[str | Path] = [sys.executable, EXAMPLES / "fatigue.py", PICTURE, "3600", "--draw", RESULTS]
    with running(watching, environment, RESULTS / "fatigue.jsonl") as fatigue:
        wait_until(RESULTS / "fatigue.jsonl", {"reefd": daemon, "fatigue": fatigue})
        with running([OBSTACLE, frame, str(options.seconds)], environment, RESULTS / "beside.jsonl") as obstacle:
            obstacle.wait(options.seconds + 30)
            check(obstacle, "obstacle")
        check(fatigue, "fatigue")
    check(fatigue, "fatigue")

    say.print(f"The real-time program alone for {options.alone} seconds ...")
    with running([OBSTACLE, frame, str(options.alone)], environment, RESULTS / "alone.jsonl") as obstacle:
        obstacle.wait(options.alone + 30)
        check(obstacle, "obstacle")
    check(daemon, "reefd")


def summary() -> dict[str, Any]:
    """What report.json says."""
    alone, beside, fatigue = (lines(RESULTS / f"{name}.jsonl") for name in ("alone", "beside", "fatigue"))
    first = next((frame for frame in beside if frame["people"]), None)
    if first is None:
        raise DemoError("obstacle found nobody")
    watched = fatigue[-1]["time"] - fatigue[0]["time"]
    return {
        "obstacle": {
            **first["people"][0],
            "detections": sum(len(frame["people"]) for frame in alone + beside),
            "alone": latency(alone),
            "beside": latency(beside),
            "missed": sum(frame["missed"] for frame in alone + beside),
        },
        "fatigue": {
            "face_score": fatigue[0]["face"]["score"],
            "face_center": fatigue[0]["face"]["center"],
            "ear": fatigue[0]["ear"],
            "ear_closed": min((frame["ear"] for frame in fatigue if "ear" in frame), key=sum),
            "perclos_max": max(frame["perclos"] for frame in fatigue if "perclos" in frame),
            "frames": len(fatigue),
            "fps": round((len(fatigue) - 1) / watched, 1) if watched > 0 else 0.0,
        },
    }


def draw_pictures(report: dict[str, Any]) -> None:
    """obstacle.png, and demo.png: everything beside each other."""
    person = report["obstacle"]
    street = Image.open(PICTURE).convert("RGB")
    draw.box(street, person["center"], person["size"], f"person {person['score']:.2f}")
    street.save(RESULTS / "obstacle.png")
    parts = [street] + [Image.open(path) for path in sorted(RESULTS.glob("fatigue-*.png"), reverse=True)]
    together = Image.new("RGB", (512 * len(parts), 512))
    for index, part in enumerate(parts):
        together.paste(part.resize((512, 512)), (512 * index, 0))
    together.save(RESULTS / "demo.png", optimize=True)


def print_table(report: dict[str, Any], say: Console) -> None:
    """The report for people."""
    obstacle, fatigue = report["obstacle"], report["fatigue"]
    table = Table("obstacle (C, real-time, 20 Hz)", "p50 ms", "p99 ms", "max ms", "frames", "missed", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, title in (("alone", "alone"), ("beside", "beside fatigue")):
        row = obstacle[name]
        times = (f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "max_ms"))
        table.add_row(title, *times, str(row["frames"]), str(row["missed"]))
    (x, y), (right, left) = obstacle["center"], fatigue["ear"]
    say.print()
    say.print(table)
    say.print(f"\nperson {obstacle['score']:.3f} at ({x:.0f}, {y:.0f}), {obstacle['detections']} detections")
    say.print(
        f"fatigue (Python, best-effort): {fatigue['fps']} frames a second beside obstacle; "
        f"face {fatigue['face_score']:.3f}, eye aspect ratio {right:.2f} {left:.2f}, "
        f"PERCLOS up to {fatigue['perclos_max']:.0%}"
    )
    say.print(f"Pictures and report.json are in {RESULTS.relative_to(ROOT)}", highlight=False)


def main() -> int:
    """Runs the demo. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Two perception programs share one daemon.")
    parser.add_argument("--seconds", type=int, default=10, help="side by side")
    parser.add_argument("--alone", type=int, default=5, help="the real-time program alone")
    parser.add_argument("--device", default="cpu", help="cuda and hip need networks compiled with --target")
    options = parser.parse_args()
    say = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.iterdir():
        old.unlink()
    try:
        with ExitStack() as stack:
            drive(stack, options, say)
        report = summary()
    except (DemoError, subprocess.TimeoutExpired) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    draw_pictures(report)
    (RESULTS / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print_table(report, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
