# SPDX-License-Identifier: Apache-2.0
"""A client that takes region C's pages away loses its session; the daemon lives and so do the others."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys

import pytest

from reefd import _engine
from tests import ROOT, wait_until

from . import models
from .regions import Client, open_session


@pytest.fixture
def engine():
    engine = _engine.Engine(device="cpu", workers=1)
    engine.start()
    yield engine
    engine.stop(grace_ns=0, keep_sessions=False)


def quarantined(engine: _engine.Engine, client: Client) -> None:
    wait_until(lambda: client.d_hot.verdict == -errno.EPROTO, what="quarantined")
    (event,) = [event for event in engine.poll_events() if event.kind == "quarantine"]
    assert "truncated" in event.text


@pytest.mark.parametrize("left", [0, 4096, 8192])
def test_truncated_while_idle(engine, left):
    task = models.add_task(engine)
    bad, good = open_session(engine, task, 1), open_session(engine, task, 2)
    if left:  # an entry was published; of 8192 bytes it is part, its input is not
        bad.submit(0, model=0, publish=False)
        bad.hot.sq_tail = 1
    os.ftruncate(bad.regions.c_fd, left)
    os.eventfd_write(bad.regions.doorbell, 1)
    quarantined(engine, bad)
    good.submit(0, model=1)
    assert [d.status for d in good.wait()] == [0]
    engine.detach(session_id=1, code=-errno.EPROTO)
    wait_until(lambda: "detached" in [event.kind for event in engine.poll_events()])


def test_truncated_while_a_worker_reads_the_input(engine):
    task = models.add_task(engine)
    bad, good = open_session(engine, task, 1), open_session(engine, task, 2)
    for slot in range(4):
        bad.submit(slot, model=1, publish=False)
    bad.publish()
    wait_until(lambda: bad.d_hot.sq_head == 4)
    os.ftruncate(bad.regions.c_fd, 0)
    os.eventfd_write(bad.regions.doorbell, 1)  # should the worker have been quicker
    quarantined(engine, bad)
    # Each was completed, by its run or by the quarantine; c's words are zero, so nothing was consumed.
    wait_until(lambda: bad.d_hot.cq_tail == 4)
    good.submit(0, model=1)
    assert [d.status for d in good.wait()] == [0]


def test_other_faults_stay_what_they_were(engine):
    """Somebody else's SIGBUS goes to the handler that was there before, or ends the process as ever."""
    script = """
import ctypes, faulthandler, mmap, os, sys
from tests.engine.regions import echo_task, open_session
from reefd import _engine
if sys.argv[1] == "handler":
    faulthandler.enable()
engine = _engine.Engine(device="cpu", workers=1)
engine.start()
open_session(engine, echo_task(engine))
fd = os.memfd_create("other")
os.ftruncate(fd, 4096)
memory = mmap.mmap(fd, 4096)
os.ftruncate(fd, 0)
memory[0]
"""
    for how in ("default", "handler"):
        done = subprocess.run([sys.executable, "-c", script, how], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGBUS
        assert ("Fatal Python error: Bus error" in done.stderr) == (how == "handler")


def test_the_client_cannot_fault_what_the_daemon_writes():
    """Region D is handed out read-only: no truncation, no writing. (The control plane opens it so; this shows why it
    suffices.)"""
    fd = os.memfd_create("d")
    os.ftruncate(fd, 4096)
    read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    with pytest.raises(OSError):
        os.ftruncate(read_only, 0)
    punch = ctypes.CDLL(None, use_errno=True).fallocate
    assert punch(read_only, 3, ctypes.c_long(0), ctypes.c_long(4096)) != 0
    os.close(read_only)
    os.close(fd)
