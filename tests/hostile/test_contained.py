# SPDX-License-Identifier: Apache-2.0
"""Each attack ends in a typed error for who made it, a line in the log and a counter; the client beside it is served.

docs/hostile.md lists all attacks and the tests that make them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import re
import resource
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import libreef
from libreef._reef import ffi
from reefd import wire
from reefd.bench.hostile import Session
from tests.daemon.reefd_process import NOBODY, SHM, Reefd, run_as

from .beside import CQ_TAIL, PAGE, VERDICT, honest, looked_at, soon, word

CQ, ENTRY = 2 * PAGE, 64  # of region D
STATUS = dict(ffi.typeof("struct reef_cqe").fields)["status"].offset


def counted(daemon: Reefd, event: str, times: int = 1) -> str:
    """Waits until the event was counted so often; its first line in the log."""
    daemon.wait_for(lambda: daemon.status()["events"].get(event, 0) >= times)
    assert daemon.status()["events"][event] == times
    line = next(line for line in daemon.log().splitlines() if f"{event}:" in line)
    assert f"uid={os.geteuid()}" in line and "pid=" in line
    return line


# ---------------------------------------------------------------- what a client writes into its region


def test_every_byte_of_the_region(daemon):
    """One after the other, each is something else while requests are taken and run. What is fatal ends that session.
    Now and then an entry is published as it lies there."""
    chance = random.Random(3)
    lost = 0
    with honest(daemon):
        session = Session(str(daemon.socket), "be")
        size = len(session.memory)
        requests = 0
        for at in range(size):
            if at % 16 == 0:
                session.submit(session.entry(requests % 4, 1 + requests // 4))
                requests += 1
            session.memory[at] = session.memory[at] ^ chance.randrange(1, 256)
            session.ring()
            if at % 128 == 127:
                session.memory[0:4] = struct.pack("<I", session.tail + 1)
                session.ring()
            if at % 16 == 15:
                soon(lambda session=session: looked_at(session))
                session.memory[128:132] = os.pread(session.d, 4, CQ_TAIL)
            if word(session, VERDICT) != 0:
                assert word(session, VERDICT) == -errno.EPROTO
                session.close()
                session, requests = Session(str(daemon.socket), "be"), 0
                lost += 1
        session.close()
        daemon.wait_for(lambda: len(daemon.regions()) == 2)
    assert size > 4 * PAGE and lost >= size // 128
    daemon.wait_for(lambda: daemon.status()["events"]["quarantine"] >= lost)


def test_every_byte_of_an_entry(daemon):
    """Those that name something, and those that are reserved, are fatal; the others are the client's own affair."""
    fatal = set()
    with honest(daemon):
        for at in range(ENTRY):
            session = Session(str(daemon.socket), "be")
            entry = bytearray(session.entry(0, 1))
            entry[at] ^= 0x80
            session.submit(bytes(entry))
            daemon.wait_for(lambda session=session: word(session, VERDICT) != 0 or word(session, CQ_TAIL) == 1)
            if word(session, VERDICT) != 0:
                fatal.add(at)
            session.close()
        counted(daemon, "quarantine", len(fatal))
    harmless = {"high half of sequence": range(20, 24), "data_id, user_data": range(24, 40)}
    harmless |= {"deadline_ns": range(40, 48), "crc, where nobody asks for one": range(60, 64)}
    assert fatal == set(range(ENTRY)).difference(*harmless.values())


def test_libreef_tells_whose_region_was_spoiled(daemon):
    """A client that overwrites its own region gets an exception that says so, and a new session if it wants one."""
    with honest(daemon), libreef.Client("be", socket=daemon.socket) as client:
        client.infer(input=np.ones(64, np.uint8))
        maps = Path("/proc/self/maps").read_text()
        start = int(re.search(rf"^(\w+)-.*reef\.{daemon.instance}\.be\.\d+\.c$", maps, re.M)[1], 16)
        ctypes.c_uint32.from_address(start + 128).value = 77  # cq_head
        with pytest.raises(libreef.ProtocolError) as caught:
            client.infer(input=np.ones(64, np.uint8), timeout=60)
        assert caught.value.code == -errno.EPROTO
        assert "code=EPROTO" in counted(daemon, "quarantine")
        with libreef.Client("be", socket=daemon.socket) as another:
            another.infer(input=np.ones(64, np.uint8))


LARGEST = (1 << 32) - 1
EXTREMES: dict[str, tuple[dict[str, int], int]] = {
    # fields of an otherwise honest entry -> what becomes of it: the session's verdict, or the request's status
    "slot": ({"slot": LARGEST}, -errno.EPROTO),
    "slot, one too far": ({"slot": 4}, -errno.EPROTO),
    "model": ({"model": LARGEST}, -errno.EPROTO),
    "generation": ({"generation": LARGEST}, -errno.EPROTO),
    "generation of nothing": ({"generation": 0}, -errno.EPROTO),
    "generation to come": ({"generation": 2}, -errno.EPROTO),
    "sequence": ({"sequence": (1 << 64) - 1}, -errno.EPROTO),
    "sequence, its high half": ({"sequence": LARGEST << 32}, 0),
    "deadline": ({"deadline_ns": (1 << 64) - 1}, 0),
    "deadline, long ago": ({"deadline_ns": 1}, 0),
    "cancels nothing": ({"opcode": 1, "slot": LARGEST}, -errno.EPROTO),
    "crc": ({"flags": 2, "crc": LARGEST}, -errno.EPROTO),
}


@pytest.mark.parametrize(("fields", "outcome"), EXTREMES.values(), ids=EXTREMES)
def test_numbers_at_their_limits(daemon, fields, outcome):
    with honest(daemon):
        session = Session(str(daemon.socket), "be")
        entry = ffi.new("struct reef_sqe *", {"generation": 1, **fields})
        session.submit(bytes(ffi.buffer(entry)))
        if outcome == -errno.EPROTO:
            daemon.wait_for(lambda: word(session, VERDICT) == outcome)
            counted(daemon, "quarantine")
        else:
            daemon.wait_for(lambda: word(session, CQ_TAIL) == 1)
            assert word(session, CQ + STATUS) == outcome and word(session, VERDICT) == 0
        session.close()


@pytest.mark.parametrize("jump", [9, 1 << 31, LARGEST], ids=str)
def test_a_tail_that_jumps(daemon, jump):
    """A ring of 8 entries cannot hold so many."""
    with honest(daemon):
        session = Session(str(daemon.socket), "be")
        session.memory[0:4] = struct.pack("<I", jump)
        session.ring()
        daemon.wait_for(lambda: word(session, VERDICT) == -errno.EPROTO)
        counted(daemon, "quarantine")
        session.close()


def test_a_region_that_is_cut_short(daemon):
    with honest(daemon):
        session = Session(str(daemon.socket), "be")
        os.ftruncate(session.c, 0)
        session.ring()
        daemon.wait_for(lambda: word(session, VERDICT) == -errno.EPROTO)
        assert "cut" in (line := counted(daemon, "quarantine")) or "truncat" in line
        session.memory = memoryview(b"")
        for descriptor in (session.c, session.d, session.doorbell):
            os.close(descriptor)
        session.connection.close()
        daemon.wait_for(lambda: len(daemon.regions()) == 2)


def test_a_doorbell_that_never_stops(daemon):
    with honest(daemon):
        session = Session(str(daemon.socket), "be")
        end = time.monotonic() + 60
        while not daemon.status()["events"].get("flooding") and time.monotonic() < end:
            for _ in range(20_000):
                session.ring()
        counted(daemon, "flooding")
        session.submit(session.entry(0, 1))  # it is looked at by timer now, and served
        daemon.wait_for(lambda: word(session, CQ_TAIL) == 1)
        session.close()


# ---------------------------------------------------------------- what a client says, and has no right to


MESSAGES: dict[str, tuple[Callable[[], bytes], int]] = {
    "empty": (lambda: b"", -errno.EPROTO),
    "half a hello": (lambda: hello()[:70], -errno.EPROTO),
    "noise": (lambda: b"\xff" * wire.HELLO.size, -errno.EPROTO),
    "oversized": (lambda: hello() + bytes(60_000), -errno.EPROTO),
    "a request that there is not": (lambda: hello(request=LARGEST), -errno.EPROTO),
    "a name without an end": (lambda: hello(task=b"x" * 64), -errno.EINVAL),
    "a task that there is not": (lambda: hello(task=b"../../etc/passwd"), -errno.ENOENT),
    "somebody's session": (lambda: hello(request=wire.RECLAIM, session=1), -errno.ESTALE),
    "another version": (lambda: hello(major=9), -errno.EPROTONOSUPPORT),
}


def hello(request: int = wire.OPEN, *, task: bytes = b"be", session: int = 0, major: int = wire.ABI_MAJOR) -> bytes:
    return wire.HELLO.pack(wire.MAGIC, major, wire.ABI_MINOR, wire.HELLO.size, request, session, b"", task)


@pytest.mark.parametrize(("message", "status"), MESSAGES.values(), ids=MESSAGES)
def test_malformed_handshakes(daemon, message, status):
    with honest(daemon), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(60)
        connection.connect(str(daemon.socket))
        connection.send(message())
        answer = connection.recv(4096)
        assert wire.WELCOME.unpack(answer)[4] == status
        assert f"code={errno.errorcode[-status]}" in counted(daemon, "refused")


CLOSED = """
import libreef, sys
try:
    libreef.Client("rt", socket=sys.argv[1])
except libreef.AccessDenied as error:
    print(error.code)
"""


@pytest.mark.as_root
def test_real_time_without_the_right(daemon):
    with honest(daemon):
        assert run_as(NOBODY, CLOSED, daemon.socket).stdout == f"{-errno.EACCES}\n"
        line = next(line for line in daemon.log().splitlines() if "refused:" in line)
        assert "code=EACCES" in line and f"uid={NOBODY}" in line
        assert daemon.status()["events"]["refused"] == 1


def test_a_second_process_cannot_claim_a_session_in_use(daemon):
    """It is not adopted, so there is nothing to claim, even by who holds the region's descriptor."""
    with honest(daemon):
        session = Session(str(daemon.socket), "be")
        number = max(int(name.split(".")[-2]) for name in daemon.regions())
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(daemon.socket))
            socket.send_fds(connection, [hello(wire.RECLAIM, session=number, task=b"")], [session.c])
            assert wire.WELCOME.unpack(connection.recv(4096))[4] == -errno.ESTALE
        counted(daemon, "refused")
        session.submit(session.entry(0, 1))
        daemon.wait_for(lambda: word(session, CQ_TAIL) == 1)
        session.close()


# ---------------------------------------------------------------- what a client takes away


def test_without_descriptors(daemon):
    with honest(daemon) as times:
        limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (daemon.descriptors() + 2, limits[1]))
        with pytest.raises(libreef.TooManySessions, match="LimitNOFILE") as caught:
            libreef.Client("be", socket=daemon.socket)
        assert caught.value.code == -errno.EMFILE
        before = len(times)
        daemon.wait_for(lambda: len(times) > before + 20)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
        assert "code=EMFILE" in counted(daemon, "refused")
        with libreef.Client("be", socket=daemon.socket) as client:
            client.infer(input=np.ones(64, np.uint8))


# ---------------------------------------------------------------- planted objects


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("untouched")
    return path


@pytest.mark.parametrize("kind", ["file", "symlink", "fifo", "directory"])
def test_planted_objects_under_the_next_names(daemon, victim, kind):
    """Names are no secret: whoever may write to /dev/shm can be there first. Sessions take other names then."""
    with honest(daemon):
        number = max(int(name.split(".")[-2]) for name in daemon.regions())
        planted = [SHM / f"reef.{daemon.instance}.be.{number + 1 + i // 2}.{'cd'[i % 2]}" for i in range(40)]
        for path in planted:
            if kind == "file":
                path.write_text("planted")
            elif kind == "symlink":
                path.symlink_to(victim)
            elif kind == "fifo":
                os.mkfifo(path)
            else:
                path.mkdir()
        try:
            for value in range(3):
                with libreef.Client("be", socket=daemon.socket, timeout=60) as client:
                    client.infer(input=np.full(64, value, np.uint8))
            assert "planted:" in daemon.log() and str(planted[0].name) in daemon.log()
            assert victim.read_text() == "untouched"
            assert all(path.is_dir() or path.is_fifo() or path.exists() for path in planted)
        finally:
            for path in planted:
                path.rmdir() if kind == "directory" else path.unlink()


@pytest.mark.as_root
def test_a_planted_number_does_not_end_the_numbers(daemon):
    """A session under a name too long to be found again would be lost with the next restart."""
    path = SHM / f"reef.{daemon.instance}.be.{10**19 - 1}.c"
    path.write_text("")
    os.chown(path, NOBODY, NOBODY)
    try:
        daemon.kill()
        daemon.start(wait=False)
        with honest(daemon):
            daemon.wait_for(lambda: len(daemon.regions()) == 3)
            daemon.kill()
            daemon.start(wait=False)
        assert daemon.status()["tasks"] and path.exists()  # it serves: before, SIGTERM would end it as any program
    finally:
        path.unlink()


def test_a_refused_client_may_come_back_as_often_as_it_likes(daemon):
    """A thousand attempts by somebody who is refused each time: counted, hardly logged, and nobody else waits."""
    with honest(daemon):
        for _ in range(1000):
            with contextlib.suppress(libreef.ReefError):
                libreef.Client("nothing", socket=daemon.socket, timeout=60)
        assert daemon.status()["events"]["refused"] == 1000
        assert len(daemon.log().splitlines()) < 200
