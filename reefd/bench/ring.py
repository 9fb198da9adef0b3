# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench ring`: round trips of an echo request, beside the simplest things two processes can do.

The echo task launches nothing: the engine copies the first and the last word of the input. So what is measured is the
way from the client to the engine and back. Cases are measured in turns, a batch of each, and a case's percentiles are
those of all its batches, so that a slow moment of the machine falls on all alike. The client has one processor, the
engine or the peer another. Filling the input is not timed.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from reefd.bench import child, paced
from reefd.bench.clients import ring_client
from reefd.bench.daemon import BenchError, PrivateDaemon, Spinning
from reefd.bench.report import Case, case

BATCHES = 5
PACE = 200.0  # requests a second of a client that pauses between them
SMALL, LARGE = 64, 588 * 1024  # LARGE: a 224 x 224 x 3 picture in float32, the person detector's input

# Case -> rounds in all. Slow ones get fewer: their percentiles settle sooner.
ROUNDS = {
    "spin_64": 100_000,
    "spin_588k": 20_000,
    "python_spin_64": 50_000,
    "paced_64": 1_000,
    "wait_64": 10_000,
    "wait_588k": 10_000,
    "raw_spin": 100_000,
    "raw_eventfd_futex": 10_000,
    "unix_socket": 10_000,
    "grpc": 2_000,
}

RATIOS = (
    ("spin_64", "raw_spin"),
    ("wait_64", "raw_eventfd_futex"),
    ("spin_588k", "spin_64"),
    ("wait_588k", "wait_64"),
    ("python_spin_64", "spin_64"),
    ("paced_64", "spin_64"),
    ("unix_socket", "spin_64"),
    ("unix_socket", "wait_64"),
    ("grpc", "spin_64"),
    ("grpc", "wait_64"),
)


def _manifest(task: str, size: int) -> str:
    return f"version: 1\ntask: {task}\nclass: rt\nmodel: echo:{size}\nslots: 2\n"


TASKS = {SMALL: "echo-64", LARGE: "echo-588k"}


def _times(command: list[str | Path], environment: Mapping[str, str] | None = None) -> np.ndarray:
    """Runs a client that writes uint32 nanoseconds to its standard output."""
    code, out = child.output(command, environment)
    if code != 0:
        raise BenchError(f"{command[0]} ended with code {code}; see its words above")
    return np.frombuffer(out, dtype=np.uint32)


class _Batch:
    """One turn through all cases."""

    def __init__(self, rounds: Mapping[str, int], cpu: int, peer_cpu: int) -> None:
        self._rounds, self._cpu, self._peer_cpu = rounds, cpu, peer_cpu
        self._client = ring_client()

    def run(self) -> dict[str, np.ndarray]:
        times: dict[str, np.ndarray] = {}
        times |= self._with_daemon("always", "spin")
        times |= self._with_daemon("never", "wait")
        for name in ("raw_spin", "raw_eventfd_futex", "unix_socket"):
            times[name] = _times([self._client, name, str(self._rounds[name]), str(self._cpu), str(self._peer_cpu)])
        if "grpc" in self._rounds:
            times["grpc"] = self._grpc()
        return times

    def _with_daemon(self, spinning: Spinning, word: str) -> dict[str, np.ndarray]:
        manifests = {f"{task}.yaml": _manifest(task, size) for size, task in TASKS.items()}
        times = {}
        with PrivateDaemon(manifests, spinning=spinning, cpus=[self._peer_cpu]) as daemon:
            for suffix, size in (("64", SMALL), ("588k", LARGE)):
                rounds = str(self._rounds[f"{word}_{suffix}"])
                command: list[str | Path] = [self._client, word, rounds, str(self._cpu), TASKS[size]]
                times[f"{word}_{suffix}"] = _times(command, daemon.environment)
            if word == "spin":
                module = [sys.executable, "-m", "reefd.bench.ring_python", TASKS[SMALL]]
                command = [*module, str(self._rounds["python_spin_64"]), str(self._cpu)]
                times["python_spin_64"] = _times(command, daemon.environment)
                seconds = self._rounds["paced_64"] / PACE
                times["paced_64"] = paced.requests(TASKS[SMALL], daemon.socket, seconds, PACE, cpu=self._cpu).whole
        return times

    def _grpc(self) -> np.ndarray:
        module: list[str | Path] = [sys.executable, "-m", "reefd.bench.grpc_peer"]
        with tempfile.TemporaryDirectory(prefix="reefd-bench-") as folder:
            socket = Path(folder) / "grpc.sock"
            with child.start(
                [*module, "serve", socket, str(self._peer_cpu)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as server:
                if server.stdout is None or server.stdout.readline() != b"ready\n":
                    raise BenchError("the gRPC peer did not start; see its words above")
                return _times([*module, "call", socket, str(self._cpu), str(self._rounds["grpc"])])


def measure(scale: float = 1.0) -> tuple[list[Case], dict[str, float], list[str]]:
    """Runs every case; returns them with their ratios and notes for people. scale: a share of the usual rounds."""
    cpus = sorted(os.sched_getaffinity(0))
    notes = []
    if len(cpus) < 2:
        raise BenchError("this benchmark needs two processors: with one, each side waits for the other's time slice")
    rounds = {name: max(1, round(count * scale / BATCHES)) for name, count in ROUNDS.items()}
    if importlib.util.find_spec("grpc") is None:
        del rounds["grpc"]
        notes.append("grpc was left out: pip install grpcio")
    batches = [_Batch(rounds, cpus[0], cpus[1]).run() for _ in range(BATCHES)]
    cases = {name: case(name, np.concatenate([batch[name] for batch in batches])) for name in rounds}
    ratios = {
        f"{name}/{base}": round(cases[name].p50_us / cases[base].p50_us, 3)
        for name, base in RATIOS
        if name in cases and base in cases
    }
    return list(cases.values()), ratios, notes
