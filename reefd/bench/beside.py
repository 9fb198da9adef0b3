# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench beside`: what a best-effort load does to real-time requests.

A person detector as a real-time task sends requests at a fixed rate. In every other second the same network runs as a
best-effort task too, from another process that always has several requests in flight, so that the device is never idle.
Seconds with and without the load alternate, so that both meet the same machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from libreef import Client
from reefd.bench.daemon import BenchError, PrivateDaemon
from reefd.bench.report import Case, case

MODEL = "person_detector"
RT_TASK, BE_TASK = "bench-rt", "bench-be"
WINDOW_S = 1.0
SETTLE_S = 0.2  # after the load was stopped or continued, not measured
MANIFESTS = {
    "rt.yaml": f"version: 1\ntask: {RT_TASK}\nclass: rt\nmodel: {MODEL}\nslots: 2\n",
    "be.yaml": f"version: 1\ntask: {BE_TASK}\nclass: be\nmodel: {MODEL}\nslots: 4\n",
}


def _fill(tensor: np.ndarray) -> None:
    tensor[:] = np.random.default_rng(1).uniform(-1, 1, tensor.shape)


def load() -> None:
    """The best-effort process: keeps all slots busy until it is ended. Prints a dot for each answer."""
    with Client(BE_TASK, timeout=10.0) as client:
        loans = [client.loan() for _ in range(4)]
        for loan in loans:
            _fill(loan.inputs["image"].array)
        pending = [loan.submit() for loan in loans]
        while True:
            for index, loan in enumerate(loans):
                pending[index].result()
                pending[index] = loan.submit()
                os.write(1, b".")


class Windows:
    """Sends real-time requests at absolute times and keeps what each took."""

    def __init__(self, client: Client, rate: float) -> None:
        self._loan = client.loan()
        _fill(self._loan.inputs["image"].array)
        self._period_ns = int(1e9 / rate)
        self._random = np.random.default_rng(2)

    def measure(self, seconds: float) -> list[int]:
        """One window: round trips in nanoseconds, from submission to the answer."""
        times = []
        start = time.monotonic_ns()
        for number in range(round(seconds * 1e9 / self._period_ns)):
            # A little jitter, so that requests meet the load at every phase.
            due = start + number * self._period_ns + int(self._random.uniform(0, 0.2) * self._period_ns)
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            before = time.perf_counter_ns()
            self._loan.infer()
            times.append(time.perf_counter_ns() - before)
        return times


def measure(requests: int, rate: float, resource_dir: Path) -> tuple[list[Case], dict[str, float], list[str]]:
    """Returns the cases `alone` and `beside`, their ratios, and notes for people."""
    if not (resource_dir / MODEL / "model.json").exists():
        raise BenchError(f"there is no {MODEL} in {resource_dir}: run `make resources`, or name --resource-dir")
    pairs = max(1, round(requests / rate / WINDOW_S / 2))
    times: dict[str, list[int]] = {"alone": [], "beside": []}
    # As a real-time program would; without the right to it the ratio shows that too.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(10))
    answered = 0
    with PrivateDaemon(MANIFESTS, resource_dirs=[resource_dir.resolve()]) as daemon:
        os.environ["REEF_SOCKET"] = str(daemon.socket)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        # The load must not inherit the real-time class of this process.
        background = subprocess.Popen(
            [sys.executable, "-m", "reefd.bench.beside"],
            stdout=writer,
            preexec_fn=lambda: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0)),
        )
        os.close(writer)
        try:
            with Client(RT_TASK, timeout=10.0) as client:
                windows = Windows(client, rate)
                _wait_for_first_answer(reader, background)
                for _ in range(pairs):
                    background.send_signal(signal.SIGSTOP)
                    time.sleep(SETTLE_S)
                    times["alone"] += windows.measure(WINDOW_S)
                    background.send_signal(signal.SIGCONT)
                    time.sleep(SETTLE_S)
                    _drain(reader)
                    times["beside"] += windows.measure(WINDOW_S)
                    answered += _drain(reader)
        finally:
            background.kill()
            background.wait()
            os.close(reader)
    alone, beside = (case(name, np.array(times[name])) for name in ("alone", "beside"))
    ratios = {
        "beside/alone p50": round(beside.p50_us / alone.p50_us, 3),
        "beside/alone p99": round(beside.p99_us / alone.p99_us, 3),
        "best-effort requests a second": round(answered / (pairs * WINDOW_S), 1),
    }
    return [alone, beside], ratios, []


def _drain(reader: int) -> int:
    """How many answers the load got since the last call."""
    try:
        return len(os.read(reader, 1 << 16))
    except BlockingIOError:
        return 0


def _wait_for_first_answer(reader: int, background: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while _drain(reader) == 0:
        if background.poll() is not None or time.monotonic() > end:
            raise BenchError("the best-effort load gets no answers; see its words above")
        time.sleep(0.05)


if __name__ == "__main__":
    load()
