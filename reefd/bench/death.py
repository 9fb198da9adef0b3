# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench death`: how soon a client that waits knows that its daemon was killed.

The clock starts before kill(2) and stops when reef_wait() has returned -ENOTCONN in another thread.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from contextlib import suppress

import numpy as np

import libreef
from libreef._reef import ffi, lib
from reefd.bench.daemon import BenchError, PrivateDaemon
from reefd.bench.report import Case, case
from reefd.regions import SHM

MANIFESTS = {"echo.yaml": "version: 1\ntask: bench\nclass: rt\nmodel: echo:64\n"}


def measure(rounds: int) -> tuple[list[Case], dict[str, float], list[str]]:
    """One case: nanoseconds from the kill to the waiter's return."""
    try:
        times = np.array([_once() for _ in range(rounds)])
    finally:
        for left in SHM.glob(f"reef.bench-{os.getpid()}.*"):  # the last one had no successor
            left.unlink()
    return [case("SIGKILL to -ENOTCONN", times)], {"under 1 ms": round(float(np.mean(times < 1e6)), 3)}, []


def _once() -> int:
    with PrivateDaemon(MANIFESTS, log_level="error") as daemon:
        info = libreef.probe(daemon.socket, timeout=10)
        path = ffi.new("char[]", os.fsencode(daemon.socket))
        task = ffi.new("char[]", b"bench")
        params = ffi.new("struct reef_open_params *", {"size": ffi.sizeof("struct reef_open_params")})
        params.socket, params.task, params.flags = path, task, lib.REEF_OPEN_NO_RECONNECT
        session = ffi.new("reef_session **")
        if lib.reef_open(params, session) != 0:
            raise BenchError("the private daemon refuses a session")
        completion = ffi.new("struct reef_completion *")
        end: list[int] = []

        def wait() -> None:
            with suppress(PermissionError):  # as a real-time client would
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
            code = lib.reef_wait(session[0], -1, completion)
            end.append(time.monotonic_ns() if code == -errno.ENOTCONN else 0)

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.05)
        start = time.monotonic_ns()
        os.kill(info.pid, signal.SIGKILL)
        waiter.join()
        lib.reef_close(session[0])
        if not end[0]:
            raise BenchError("the waiter was told something else than -ENOTCONN")
        return end[0] - start
