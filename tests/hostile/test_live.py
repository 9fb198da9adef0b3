# SPDX-License-Identifier: Apache-2.0
"""Hostile clients against the running daemon, and an honest one beside them that must not notice."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

import libreef
from libreef._reef import ffi
from reefd.bench.hostile import KINDS, Session
from tests.daemon.reefd_process import NOBODY, PATIENCE, SHM, Reefd, run_as

from .beside import CQ_TAIL, PAGE, VERDICT, honest, punch, soon, stopped, word

pytestmark = pytest.mark.hostile

QUARANTINES = int(os.environ.get("REEF_QUARANTINES", "20000"))


def test_quarantines_one_after_the_other(daemon):
    with honest(daemon) as times:
        daemon.wait_for(lambda: bool(times))
        descriptors = daemon.descriptors()
        for number in range(QUARANTINES):
            session = Session(str(daemon.socket), "be")
            session.submit(os.urandom(64) if number % 2 else session.entry(number % 9, 7))
            soon(lambda session=session: word(session, VERDICT) == -errno.EPROTO)
            session.close()
        daemon.wait_for(lambda: daemon.status()["events"].get("quarantine", 0) == QUARANTINES)
        daemon.wait_for(lambda: len(daemon.regions()) == 2)
        daemon.wait_for(lambda: daemon.descriptors() == descriptors)
    quarantined = daemon.status()["events"]["quarantine"]
    half, most = np.percentile(times, (50, 99)) / 1e3
    print(f"{quarantined} quarantines beside {len(times)} honest requests, p50 {half:.0f} us, p99 {most:.0f} us")


def at_it(events: dict[str, int]) -> bool:
    return events.get("quarantine", 0) > 10 and events.get("flooding", 0) >= 1 and events.get("refused", 0) > 10


def test_every_kind_at_once(daemon):
    program = [sys.executable, "-m", "reefd.bench.hostile", str(daemon.socket), "be"]
    attackers = [subprocess.Popen([*program, kind], stderr=subprocess.DEVNULL) for kind in KINDS]
    try:
        with honest(daemon) as times:
            time.sleep(10)
            with contextlib.suppress(PermissionError):  # out of SCHED_IDLE: each has its turns on a busy machine
                for attacker in attackers:
                    os.sched_setscheduler(attacker.pid, os.SCHED_OTHER, os.sched_param(0))
            daemon.wait_for(lambda: len(times) > 100 and at_it(daemon.status()["events"]))
        assert all(attacker.poll() is None for attacker in attackers)
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()
    daemon.wait_for(lambda: not daemon.regions())
    assert len(daemon.log().splitlines()) < 400


def test_thousands_of_half_open_sessions(daemon):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    import socket

    with honest(daemon):
        silent = []
        for _ in range(3000):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.settimeout(5)
            with contextlib.suppress(OSError):
                connection.connect(str(daemon.socket))
            silent.append(connection)
        with libreef.Client("be", socket=daemon.socket, timeout=PATIENCE) as client:
            client.infer(input=np.ones(64, np.uint8), timeout=PATIENCE)
        for connection in silent:
            connection.close()


def test_sessions_up_to_the_limit_and_no_further(daemon):
    with honest(daemon):
        sessions = []
        with pytest.raises(OSError) as refused:
            while True:
                sessions.append(Session(str(daemon.socket), "be"))
        assert refused.value.errno == errno.EMFILE and len(sessions) == 600
        for session in sessions:
            session.close()


def test_stopped_in_the_middle_of_a_submit(daemon):
    """The entry is half written, or written and not published, or published and not rung."""
    with honest(daemon):
        for stage in range(3):
            child = os.fork()
            if child == 0:
                session = Session(str(daemon.socket), "be")
                entry = session.entry(0, 1)
                if stage == 0:
                    session.memory[4096 : 4096 + 20] = entry[:20]
                else:
                    session.memory[4096 : 4096 + 64] = entry
                if stage == 2:
                    session.memory[0:4] = (1).to_bytes(4, "little")
                os.kill(os.getpid(), signal.SIGSTOP)
                session.ring()
                os._exit(0)
            os.waitpid(child, os.WUNTRACED)
            time.sleep(0.3)
            os.kill(child, signal.SIGCONT)
            assert os.waitpid(child, 0)[1] == 0
        daemon.wait_for(lambda: len(daemon.regions()) == 2)


def test_completions_that_are_never_consumed_cost_only_that_session(daemon):
    with honest(daemon):
        session = Session(str(daemon.socket), "be")
        for _ in range(2):  # each slot a second time without having taken its first completion
            for slot in range(4):
                session.submit(session.entry(slot, 1 + session.tail // 4))
            time.sleep(0.2)
        daemon.wait_for(lambda: daemon.status()["events"].get("quarantine") == 1)
        session.close()


def test_holes_in_a_region_are_zeros_to_the_daemon(daemon):
    """With memory to spare the pages come back empty. An empty input is one like any other; an empty entry is nobody's
    request, and a tail of nothing lies behind the head. tests/hostile/test_full_memory.py has no memory to spare."""
    outputs = dict(ffi.typeof("struct reef_header").fields)["d_outputs_offset"].offset
    with honest(daemon):
        for at in (0, PAGE, 2 * PAGE):
            session = Session(str(daemon.socket), "be")
            (answer,) = struct.unpack("<Q", os.pread(session.d, 8, outputs))
            session.memory[2 * PAGE : 2 * PAGE + 64] = b"\xff" * 64
            session.submit(session.entry(0, 1))
            soon(lambda session=session: word(session, CQ_TAIL) == 1)
            assert os.pread(session.d, 16, answer) == b"\xff" * 16
            session.memory[128:132] = struct.pack("<I", 1)
            with stopped(daemon):
                session.submit(session.entry(0, 2))
                punch(session, at, PAGE)
            if at == 2 * PAGE:
                soon(lambda session=session: word(session, CQ_TAIL) == 2)
                assert os.pread(session.d, 16, answer) == bytes(16) and word(session, VERDICT) == 0
            else:
                soon(lambda session=session: word(session, VERDICT) == -errno.EPROTO)
            session.close()
        daemon.wait_for(lambda: len(daemon.regions()) == 2)


def test_two_processes_on_one_session_harm_nobody_else(daemon):
    """After a fork both write the same ring: what comes of it is between the two."""
    with honest(daemon):
        session = Session(str(daemon.socket), "be")
        child = os.fork()
        for number in range(200):
            session.submit(session.entry(number % 4, 1 + number // 4))
            session.memory[128:132] = session.memory[0:4]
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        session.close()
        daemon.wait_for(lambda: len(daemon.regions()) == 2)


OTHER_WAYS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, descriptor = map(int, sys.argv[1:])
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8)
local, remote = Vector(ctypes.addressof(memory), 8), Vector(0x400000, 8)
SYS_PTRACE, PTRACE_SEIZE, SYS_PIDFD_GETFD = 101, 0x4206, 438
for call in (
    lambda: libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0),
    lambda: libc.process_vm_writev(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0),
    lambda: libc.syscall(SYS_PTRACE, PTRACE_SEIZE, pid, None, None),
    lambda: libc.syscall(SYS_PIDFD_GETFD, os.pidfd_open(pid), descriptor, 0),
):
    print(ctypes.get_errno() if call() < 0 else "reached")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="run as root: it needs two users")
def test_another_user_reaches_no_tensor(daemon):
    """Neither by the name of the region nor through /proc of the client or the daemon."""
    session = Session(str(daemon.socket), "be")
    session.memory[-64:] = b"secret! " * 8
    session.memory.flush()
    assert stat_mode(daemon) == {0o600}
    paths = [str(SHM / name) for name in daemon.regions()]
    for pid in (os.getpid(), daemon.process.pid):
        paths += [f"/proc/{pid}/fd/{descriptor}" for descriptor in (session.c, session.d)] + [f"/proc/{pid}/mem"]
    code = (
        "import sys\n"
        "for path in sys.argv[1:]:\n"
        "    for mode in ('rb', 'r+b'):\n"
        "        try:\n"
        "            open(path, mode)\n"
        "        except OSError as error:\n"
        "            print(error.errno)\n"
        "        else:\n"
        "            print('opened', path)\n"
    )
    told = run_as(NOBODY, code, *paths).stdout.split()
    for pid in (os.getpid(), daemon.process.pid):
        assert set(run_as(NOBODY, OTHER_WAYS, pid, session.c).stdout.split()) == {str(errno.EPERM)}
    assert len(told) == 2 * len(paths) and set(told) <= {str(errno.EACCES), str(errno.EPERM), str(errno.ENOENT)}
    with pytest.raises((OSError, ValueError)):
        mmap.mmap(session.d, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)  # and its own region D is read-only
    session.close()


def stat_mode(daemon: Reefd) -> set[int]:
    return {(SHM / name).stat().st_mode & 0o777 for name in daemon.regions()}
