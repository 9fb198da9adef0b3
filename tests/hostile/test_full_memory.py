# SPDX-License-Identifier: Apache-2.0
"""Where /dev/shm is full. A hole punched into a region is then no zero but a SIGBUS in whoever looks; that costs the
session of the client that made it. A daemon starts, adopts and answers there; only new sessions have to be refused.

The daemon has a small /dev/shm of its own, in a mount namespace that outlives it; clients need only descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import libreef
from reefd.bench.hostile import Session
from tests import ROOT
from tests.daemon.reefd_process import PATIENCE, Reefd

from .beside import CQ_TAIL, MANIFESTS, PAGE, VERDICT, honest, punch, soon, stopped, word

pytestmark = pytest.mark.as_root

IRIS = "version: 1\ntask: iris\nclass: be\nmodel: iris\nslots: 4\n"


class Memory:
    """A tmpfs of 4 MiB in the place of /dev/shm, for processes that are launched with `launcher`."""

    def __init__(self) -> None:
        script = "mount --make-rprivate / && mount -t tmpfs -o size=4m tmpfs /dev/shm && echo ready && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            pytest.skip("needs a mount namespace of its own: run as root, where a container allows `unshare --mount`")
        self.path = Path(f"/proc/{self._holder.pid}/root/dev/shm")
        self.launcher = ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={ROOT}")

    def fill(self) -> None:
        """Takes every page that is left."""
        with (self.path / "filling").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        left = os.statvfs(self.path)
        assert left.f_bavail == 0

    def close(self) -> None:
        self._holder.communicate()


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    try:
        yield memory
    finally:
        memory.close()


@pytest.fixture
def daemon(memory: Memory, tmp_path: Path) -> Iterator[Reefd]:
    manifests = {**MANIFESTS, "iris.yaml": IRIS}
    daemon = Reefd(tmp_path, manifests, options=("--log-level", "info"), launcher=memory.launcher, memory=memory.path)
    try:
        yield daemon
        assert "internal:" not in daemon.log(), daemon.log()[-2000:]
        assert daemon.stop() == 0 and daemon.shm() == []
    finally:
        daemon.close()


@pytest.mark.parametrize("task", ["be", "iris"])
@pytest.mark.parametrize("at", ["hot words", "entries", "inputs"])
def test_a_hole_in_a_full_memory_costs_the_session(daemon, memory, task, at):
    """The engine finds no memory for what it looks at, or a thread of the device for the inputs of a network."""
    with honest(daemon) as times:
        session = Session(str(daemon.socket), task)
        session.submit(session.entry(0, 1))
        soon(lambda: word(session, CQ_TAIL) == 1)
        session.memory[128:132] = os.pread(session.d, 4, CQ_TAIL)
        size = len(session.memory)
        with stopped(daemon):  # which could otherwise give a page back before the memory is full
            session.memory[PAGE + 64 : PAGE + 128] = session.entry(1, 1)
            session.memory[0:4] = (2).to_bytes(4, "little")
            begin, end = {"hot words": (0, PAGE), "entries": (PAGE, 2 * PAGE), "inputs": (2 * PAGE, size)}[at]
            punch(session, begin, end - begin)
            memory.fill()
            session.ring()
        soon(lambda: word(session, VERDICT) == -errno.EPROTO)
        daemon.wait_for(lambda: daemon.status()["events"].get("quarantine") == 1)
        assert "quarantine: region C was truncated" in daemon.log()
        before = len(times)
        daemon.wait_for(lambda: len(times) > before + 20)
        session.close()
        daemon.wait_for(lambda: len(daemon.regions()) == 2)


def test_a_daemon_starts_and_adopts_where_the_memory_is_full(daemon, memory):
    """Nothing is left, not even for the words in its lock: it answers those who were there and refuses new sessions."""
    with libreef.Client("iris", socket=daemon.socket, timeout=PATIENCE) as client:
        inputs = {entry.name: np.full(entry.shape, 0.5, entry.dtype) for entry in client.models[0].inputs}
        before = {name: value.copy() for name, value in client.infer(0, inputs).items()}
        hostile = Session(str(daemon.socket), "be")
        daemon.kill()
        (memory.path / f"reef.{daemon.instance}.lock").unlink()  # its page would be there to be used again
        punch(hostile, 0, len(hostile.memory))
        memory.fill()
        daemon.start()
        after = client.infer(0, inputs, timeout=PATIENCE)
        assert all(np.array_equal(before[name], after[name]) for name in before)
        with pytest.raises(libreef.ReefError, match="df /dev/shm") as refused:
            libreef.Client("rt", socket=daemon.socket)
        assert refused.value.code == -errno.ENOMEM
        (memory.path / "filling").unlink()
        with libreef.Client("rt", socket=daemon.socket) as new:
            new.infer(input=np.ones(64, np.uint8))
        hostile.close()
