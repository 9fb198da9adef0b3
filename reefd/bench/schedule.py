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

SESSIONS = (1, 10, 100, 1000)
ACTIVE = (1, 10, 100, 1000)
REAL_TIME_TASKS = 100
SPAN_NS = 200_000  # simulated time of one sample
KERNELS = 20


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
    """Nanoseconds a turn, one value for each span."""
    engine = _engine.Engine(device="simulated", workers=4)
    work, urgent = _model(engine, "work", KERNELS), _model(engine, "urgent", 1)
    engine.start()
    tasks = [
        engine.add_task(_engine.TaskSpec(name=f"be{i}", task_class="be", models=[("work", work)], slots=1))
        for i in range(min(sessions, 100))
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
    times = []
    for sample in range(samples + 20):
        for client in best_effort[:active]:
            client.submit()
        real_time[sample % REAL_TIME_TASKS].submit()
        turns, ns = engine.advance(SPAN_NS)
        engine.trace()
        if sample >= 20:  # the first ones fill caches and take the first submissions
            times.append(ns / turns)
    engine.stop(grace_ns=0, keep_sessions=False)
    for client in best_effort + real_time:
        client.close()
    return np.array(times)


def measure(samples: int = 400) -> tuple[list[Case], dict[str, float], list[str]]:
    """Cases `schedule/sessions/<n>` (10 active requests, or fewer) and `schedule/active/<n>` (1,000 sessions)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    begin = time.monotonic()
    by_sessions = {n: _measure(n, min(n, 10), samples) for n in SESSIONS}
    by_active = {n: _measure(max(SESSIONS), n, samples) for n in ACTIVE}
    cases = [case(f"schedule/sessions/{n}", times) for n, times in by_sessions.items()]
    cases += [case(f"schedule/active/{n}", times) for n, times in by_active.items()]
    median = {n: float(np.median(times)) for n, times in by_active.items()}
    ratios = {
        "sessions_1000_to_10": float(np.median(by_sessions[1000]) / np.median(by_sessions[10])),
        **{f"active_{b}_to_{a}": median[b] / median[a] for a, b in pairwise(ACTIVE)},
    }
    notes = [
        f"{REAL_TIME_TASKS} real-time tasks beside; times are of one turn, averaged over {SPAN_NS // 1000} us of "
        f"simulated time; measured in {time.monotonic() - begin:.0f} s"
    ]
    return cases, ratios, notes
