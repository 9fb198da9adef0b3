# SPDX-License-Identifier: Apache-2.0
"""The two clients of benchmarks with a daemon: real-time requests at a rate, and a best-effort load that never stops.

python -m reefd.bench.clients TASK INFLIGHT    the load: keeps so many requests in flight, a dot for each answer
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from libreef import Client
from libreef.tensor import Tensors
from reefd import bench
from reefd.bench import child
from reefd.bench.daemon import BenchError

if TYPE_CHECKING:
    from reefd.bench.control import Control

FIFO_PRIORITY = 10  # of a real-time client: that of the workers, below the engine
JITTER = 0.2  # of a period: requests meet the load at every phase
FIRST_ANSWER_S = 60.0


def ring_client() -> Path:
    """The client in C (reefd/bench/ring). In an editable install it lies beside the extension modules, not here."""
    for folder in bench.__path__:
        if (found := Path(folder) / "ring_client").exists():
            return found
    raise BenchError("reefd/bench/ring_client is missing: build the project with `make setup`")


def _fill(inputs: Tensors) -> None:
    for name in inputs:
        array = inputs[name].array
        array[:] = np.random.default_rng(1).uniform(-1, 1, array.shape)


@contextmanager
def real_time_class() -> Iterator[bool]:
    """This thread in SCHED_FIFO, as a real-time program would be; its children are not. False: not permitted."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    granted = False
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(FIFO_PRIORITY))
        granted = True
    try:
        yield granted
    finally:
        if granted:
            os.sched_setscheduler(0, policy, parameters)


@dataclass(slots=True)
class Times:
    """Of requests, in nanoseconds: round trips, then what they consist of, and what the machine did to the client."""

    round_trip: list[int] = field(default_factory=list)
    submission: list[int] = field(default_factory=list)  # from before the call to accepting: doorbell, engine's wake-up
    queueing: list[int] = field(default_factory=list)  # from accepting to starting
    execution: list[int] = field(default_factory=list)  # from starting to the completion
    answer: list[int] = field(default_factory=list)  # from the completion to after the call: client's wake-up
    timer: list[int] = field(default_factory=list)  # how late the client's own timer was: no part of a request
    control: list[int] = field(default_factory=list)  # Control.run() between two requests: no part of one either

    def add(self, other: Times) -> None:
        for part in fields(Times):
            getattr(self, part.name).extend(getattr(other, part.name))


class RealTime:
    """Sends requests at absolute times."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loan = client.loan()
        _fill(self._loan.inputs)
        self._random = np.random.default_rng(2)

    def measure(self, seconds: float, rate: float, announce_ns: int = 0, control: Control | None = None) -> Times:
        """One window. announce_ns: how long before each request it is announced; 0: not at all. control: runs half a
        period after each request."""
        times = Times()
        period_ns = int(1e9 / rate)
        start = time.monotonic_ns()
        for number in range(max(1, round(seconds * rate))):
            due = start + number * period_ns + int(self._random.uniform(0, JITTER) * period_ns)
            if announce_ns:
                _sleep_until(due - announce_ns)
                self._client.announce()
            _sleep_until(due)
            before = time.monotonic_ns()
            self._loan.infer()
            after = time.monotonic_ns()
            times.round_trip.append(after - before)
            completion = self._loan.completion
            times.submission.append(completion.accept_ns - before)
            times.queueing.append(completion.start_ns - completion.accept_ns)
            times.execution.append(completion.end_ns - completion.start_ns)
            times.answer.append(after - completion.end_ns)
            times.timer.append(max(0, before - due))
            if control is not None:
                _sleep_until(due + period_ns // 2)
                times.control.append(control.run())
        return times


def _sleep_until(due_ns: int) -> None:
    time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)


class Load:
    """The best-effort client, a process of its own; paused while `with paused()`."""

    def __init__(self, task: str, socket: Path, in_flight: int = 4) -> None:
        self._task = task
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._process = child.start(
            [sys.executable, "-m", "reefd.bench.clients", task, str(in_flight)],
            stdout=writer,
            environment=os.environ | {"REEF_SOCKET": str(socket)},
        )
        os.close(writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Load:
        end = time.monotonic() + FIRST_ANSWER_S
        while self.answers() == 0:
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__(None, None, None)
                raise BenchError(f"the best-effort load {self._task} gets no answers; see its words above")
            time.sleep(0.05)
        self.pause()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._reader)

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def answers(self) -> int:
        """Since the last call."""
        try:
            return len(os.read(self._reader, 1 << 16))
        except BlockingIOError:
            return 0


def main(task: str, in_flight: int) -> None:
    """Keeps all its requests in flight until it is ended."""
    with Client(task, timeout=FIRST_ANSWER_S) as client:
        loans = [client.loan() for _ in range(in_flight)]
        for loan in loans:
            _fill(loan.inputs)
        pending = [loan.submit() for loan in loans]
        while True:
            for index, loan in enumerate(loans):
                pending[index].result()
                pending[index] = loan.submit()
                os.write(1, b".")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
