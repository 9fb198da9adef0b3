# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench interference`: what hostile best-effort clients cost a real-time client beside them.

A real-time task sends requests at a fixed rate. In every other second eight clients attack the daemon on a best-effort
task, each in its own way (hostile.py); in the seconds between they are stopped. Both kinds of seconds meet the same
machine.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from libreef import Client
from reefd.bench import child
from reefd.bench.beside import SETTLE_S, WINDOW_S
from reefd.bench.clients import RealTime, real_time_class
from reefd.bench.daemon import BenchError, PrivateDaemon
from reefd.bench.hostile import KINDS
from reefd.bench.report import Case, case
from reefd.cli_status import ask

MODEL, LOAD = "person_detector", "face_detector"
RT_TASK, BE_TASK = "bench-rt", "bench-be"
MANIFESTS = {
    "rt.yaml": f"version: 1\ntask: {RT_TASK}\nclass: rt\nmodel: {MODEL}\nslots: 2\n",
    "be.yaml": f"version: 1\ntask: {BE_TASK}\nclass: be\nmodel: {LOAD}\nslots: 4\nmax_sessions: 64\n",
}


def measure(requests: int, rate: float, resource_dir: Path) -> tuple[list[Case], dict[str, float], list[str]]:
    """Returns the cases `alone` and `hostile`, their ratios, and notes for people."""
    for model in (MODEL, LOAD):
        if not (resource_dir / model / "model.json").exists():
            raise BenchError(f"there is no {model} in {resource_dir}: run `make resources`, or name --resource-dir")
    pairs = max(1, round(requests / rate / WINDOW_S / 2))
    times: dict[str, list[int]] = {"alone": [], "hostile": []}
    place = [resource_dir.resolve()]
    with real_time_class(), PrivateDaemon(MANIFESTS, resource_dirs=place, log_level="error") as daemon:
        command = [sys.executable, "-m", "reefd.bench.hostile", str(daemon.socket), BE_TASK]
        attackers = [child.start([*command, kind]) for kind in KINDS]
        try:
            with Client(RT_TASK, socket=daemon.socket, timeout=10.0) as client:
                windows = RealTime(client)
                time.sleep(1.0)  # until all of them are at it
                for _ in range(pairs):
                    _signal(attackers, signal.SIGSTOP)
                    time.sleep(SETTLE_S)
                    times["alone"] += windows.measure(WINDOW_S, rate).round_trip
                    _signal(attackers, signal.SIGCONT)
                    time.sleep(SETTLE_S)
                    times["hostile"] += windows.measure(WINDOW_S, rate).round_trip
            _signal(attackers, signal.SIGCONT)
            status: dict[str, Any] = msgspec.json.decode(ask(daemon.socket.with_name("control.sock"), "status"))
            if any(attacker.poll() is not None for attacker in attackers):
                raise BenchError("a hostile client ended by itself: what was measured is not what it says")
        finally:
            for attacker in attackers:
                attacker.kill()
                attacker.wait()
    alone, hostile = (case(name, np.array(times[name])) for name in ("alone", "hostile"))
    ratios = {
        "hostile/alone p50": round(hostile.p50_us / alone.p50_us, 3),
        "hostile/alone p99": round(hostile.p99_us / alone.p99_us, 3),
    }
    events = ", ".join(f"{count} {name}" for name, count in status["events"].items() if count)
    notes = [f"hostile clients in SCHED_IDLE: {', '.join(KINDS)}", f"the daemon counted: {events}"]
    return [alone, hostile], ratios, notes


def _signal(processes: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        process.send_signal(number)
