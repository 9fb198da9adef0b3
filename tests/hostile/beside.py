# SPDX-License-Identifier: Apache-2.0
"""The tasks of the hostile suite, the honest real-time client beside every attack, and what the attacker can see."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import libreef
from libreef._reef import ffi, lib
from reefd.bench.hostile import Session
from tests.daemon.reefd_process import PATIENCE, Reefd

ECHO = "version: 1\ntask: {name}\nclass: {task_class}\nmodel: echo:64\nslots: 4\nmax_sessions: 600\n"
MANIFESTS = {f"{name}.yaml": ECHO.format(name=name, task_class=name) for name in ("rt", "be")}

PUNCH_HOLE = 2 | 1  # with KEEP_SIZE, without which it is not allowed
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
PAGE = lib.REEF_PAGE
_HOT = dict(ffi.typeof("struct reef_d_hot").fields)
VERDICT, SQ_HEAD, CQ_TAIL = (PAGE + _HOT[name].offset for name in ("verdict", "sq_head", "cq_tail"))  # of region D


def word(session: Session, at: int) -> int:
    """Of region D, which the daemon writes."""
    return struct.unpack("<i", os.pread(session.d, 4, at))[0]


def looked_at(session: Session) -> bool:
    """Whether the engine has taken, or refused, everything up to the tail that it can see."""
    return word(session, VERDICT) != 0 or os.pread(session.d, 4, SQ_HEAD) == session.memory[0:4]


def soon(condition: Callable[[], bool]) -> None:
    """Waits for what takes microseconds where nobody is in the way, and may happen thousands of times."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE} s in vain"
        time.sleep(0.0001)


@contextlib.contextmanager
def stopped(daemon: Reefd) -> Iterator[None]:
    """It looks at nothing meanwhile."""
    daemon.process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{daemon.process.pid}/task")
    daemon.wait_for(lambda: all("\nState:\tT" in (thread / "status").read_text() for thread in threads.iterdir()))
    yield
    daemon.process.send_signal(signal.SIGCONT)


def punch(session: Session, at: int, size: int) -> None:
    """Gives pages of region C back."""
    assert LIBC.fallocate(session.c, PUNCH_HOLE, at, size) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def honest(daemon: Reefd) -> Iterator[list[int]]:
    """A real-time client that asks all the while; each answer is checked, and its time kept (ns)."""
    times: list[int] = []
    over = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        with libreef.Client("rt", socket=daemon.socket, timeout=PATIENCE) as client:
            value = 0
            while not over.is_set():
                value += 1
                sent = (np.arange(64) + value).astype(np.uint8)
                start = time.monotonic_ns()
                answer = client.infer(input=sent, timeout=PATIENCE)["output"].tobytes()
                times.append(time.monotonic_ns() - start)
                if answer != sent[:8].tobytes() + sent[-8:].tobytes():
                    wrong.append((value, answer))
                time.sleep(0.001)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        daemon.wait_for(lambda: bool(times) or not thread.is_alive())
        yield times
    finally:
        over.set()
        thread.join(60)
    assert times and not wrong
