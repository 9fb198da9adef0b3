# SPDX-License-Identifier: Apache-2.0
"""The tasks of the hostile suite, and the honest real-time client beside every attack."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np

import libreef
from tests.daemon.reefd_process import PATIENCE, Reefd

ECHO = "version: 1\ntask: {name}\nclass: {task_class}\nmodel: echo:64\nslots: 4\nmax_sessions: 600\n"
MANIFESTS = {f"{name}.yaml": ECHO.format(name=name, task_class=name) for name in ("rt", "be")}


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
