# SPDX-License-Identifier: Apache-2.0
"""What a turn of the engine costs with many sessions and many active requests: the real rings and scheduler over a
simulated device, so that nothing but the engine's own work is measured.

Two curves: more sessions at a fixed number of active requests, which must not matter, and more active requests at a
fixed number of sessions. A hundred real-time tasks are there all the time, one of which submits in each measured span.
"""

from __future__ import annotations

import mmap
import os
import resource
import socket
import time
from itertools import pairwise

import numpy as np

from libreef._reef import ffi, lib
from reefd import _engine
from reefd.bench.report import Case, case

SESSIONS = (1, 10, 100, 300, 1000)
ACTIVE = (1, 3, 10, 30, 100, 300, 1000)
BEST_EFFORT_TASKS = 100
REAL_TIME_TASKS = 100
SPAN_NS = 200_000  # simulated time of one sample
KERNELS = 20
WARM = 20  # spans that fill caches and take the first submissions


class _Client:
    """A session of one slot whose client only ever submits."""

    def __init__(self, engine: _engine.Engine, task: int, session_id: int) -> None:
        sizes = engine.region(task)
        c_fd, d_fd = os.memfd_create("c"), os.memfd_create("d")
        os.ftruncate(c_fd, sizes.c_size)
        os.ftruncate(d_fd, sizes.d_size)
        self._doorbell = os.eventfd(0)
        ours, daemons = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        engine.attach(
            task=task, session_id=session_id, daemon_epoch=1, c_fd=c_fd, d_fd=d_fd, doorbell_fd=self._doorbell,
            socket_fd=daemons.fileno(),
        )  # fmt: skip
        ours.close()
        daemons.close()
        self._c, self._d = mmap.mmap(c_fd, 0), mmap.mmap(d_fd, 0)
        os.close(c_fd)
        os.close(d_fd)
        c, d = ffi.from_buffer(self._c), ffi.from_buffer(self._d)
        self._header = ffi.cast("struct reef_header *", d)
        self._client = ffi.cast("struct reef_c_hot *", c)
        self._daemon = ffi.cast("struct reef_d_hot *", d + lib.REEF_PAGE)
        self._sq = ffi.cast("struct reef_sqe *", c + self._header.c_sq_offset)
        self._tail = 0

    def submit(self) -> bool:
        """Unless the one before has not completed."""
        if self._daemon.cq_tail != self._tail:
            return False
        self._client.cq_head = self._tail
        entry = self._sq[self._tail % self._header.entries]
        entry.sequence = self._tail
        entry.generation = self._tail + 1
        self._tail += 1
        self._client.sq_tail = self._tail
        if self._daemon.need_wakeup:
            os.eventfd_write(self._doorbell, 1)
        return True

    def close(self) -> None:
        os.close(self._doorbell)


def _model(engine: _engine.Engine, name: str, kernels: int) -> _engine.Model:
    spec = _engine.ModelSpec(name, 0)
    x = spec.add_storage("x", "input", "uint8", [8])
    y = spec.add_storage("y", "output", "uint8", [8])
    for i in range(kernels):
        spec.add_kernel(
            f"k{i}", "simulated", [x, y], ["read", "write"], {"blocks": 4, "block_ns": 5000, "check_ns": 1000}
        )
    spec.set_inputs([x])
    spec.set_outputs([y])
    return engine.load(spec)


def _measure(sessions: int, active: int, samples: int) -> np.ndarray:
    """Nanoseconds of each turn."""
    engine = _engine.Engine(device="simulated", workers=4)
    work, urgent = _model(engine, "work", KERNELS), _model(engine, "urgent", 1)
    engine.start()
    tasks = [
        engine.add_task(_engine.TaskSpec(name=f"be{i}", task_class="be", models=[("work", work)], slots=1))
        for i in range(min(sessions, BEST_EFFORT_TASKS))
    ]
    best_effort = [_Client(engine, tasks[i % len(tasks)], 1 + i) for i in range(sessions)]
    real_time = [
        _Client(
            engine,
            engine.add_task(_engine.TaskSpec(name=f"rt{i}", task_class="rt", models=[("urgent", urgent)], slots=1)),
            10_000 + i,
        )
        for i in range(REAL_TIME_TASKS)
    ]
    turns: list[int] = []
    for sample in range(WARM + samples):
        for client in best_effort[:active]:
            client.submit()
        real_time[sample % REAL_TIME_TASKS].submit()
        taken = engine.advance(SPAN_NS)
        engine.trace()
        if sample >= WARM:
            turns += taken
    engine.stop(grace_ns=0, keep_sessions=False)
    for client in best_effort + real_time:
        client.close()
    return np.array(turns)


def measure(samples: int = 400) -> tuple[list[Case], dict[str, float], list[str]]:
    """Cases `schedule/sessions/<n>` (10 active requests, or fewer) and `schedule/active/<n>` (1,000 sessions), one turn
    each; `... to active` in the ratios is the cost's growth between the two numbers divided by theirs, at most 1 where
    it grows no faster."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    begin = time.monotonic()
    cases = [case(f"schedule/sessions/{n}", _measure(n, min(n, 10), samples)) for n in SESSIONS]
    by_active = {n: case(f"schedule/active/{n}", _measure(max(SESSIONS), n, samples)) for n in ACTIVE}
    by_sessions = dict(zip(SESSIONS, cases, strict=True))
    ratios = {"sessions 1000 to 10, p50": by_sessions[1000].p50_us / by_sessions[10].p50_us}
    for a, b in pairwise(ACTIVE):
        for word in ("p50_us", "p99_us"):
            growth = getattr(by_active[b], word) / getattr(by_active[a], word)
            ratios[f"growth to active, {a} to {b}, {word[:3]}"] = round(growth / (b / a), 3)
    notes = [
        f"{REAL_TIME_TASKS} real-time tasks beside, one of which submits in each of {samples} spans of "
        f"{SPAN_NS // 1000} us of simulated time; measured in {time.monotonic() - begin:.0f} s"
    ]
    return [*cases, *by_active.values()], ratios, notes
