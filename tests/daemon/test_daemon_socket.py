# SPDX-License-Identifier: Apache-2.0
"""The session socket against peers that are not libreef: answered in words or dropped, and nobody else notices."""

import array
import errno
import os
import resource
import signal
import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest

import libreef
from libreef._reef import ffi
from reefd import disposal, wire
from tests import ROOT

from .reefd_process import Reefd


def connect(daemon: Reefd) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(60)
    connection.connect(str(daemon.socket))
    return connection


def hello(request: int = wire.OPEN, *, task: bytes = b"echo", session: int = 0, **changed) -> bytes:
    fields = {"magic": wire.MAGIC, "major": wire.ABI_MAJOR, "minor": wire.ABI_MINOR, "size": wire.HELLO.size} | changed
    reserved = fields.pop("reserved", bytes(40))
    return wire.HELLO.pack(*fields.values(), request, session, reserved, task)


def answer(connection: socket.socket) -> tuple[int, str, int]:
    """(status, text, how many descriptors)."""
    data, ancillary, _, _ = connection.recvmsg(4096, 1024)
    fields = wire.WELCOME.unpack(data)
    descriptors = array.array("i")
    for _, _, raw in ancillary:
        descriptors.frombytes(raw)
    for descriptor in descriptors:
        os.close(descriptor)
    return fields[4], fields[-1].split(b"\0")[0].decode(), len(descriptors)


def ask(daemon: Reefd, message: bytes, descriptors: tuple[int, ...] = ()) -> tuple[int, str, int]:
    with connect(daemon) as connection:
        socket.send_fds(connection, [message], list(descriptors))
        return answer(connection)


def works(daemon: Reefd) -> None:
    with libreef.Client("echo", socket=daemon.socket, timeout=60) as client:
        client.infer(input=np.ones(64, np.uint8), timeout=60)


@pytest.mark.parametrize(
    ("name", "structure", "fields"),
    [
        ("hello", wire.HELLO, ["magic", "abi_major", "abi_minor", "size", "request", "session_id", "reserved", "task"]),
        (
            "welcome",
            wire.WELCOME,
            ["magic", "abi_major", "abi_minor", "size", "status", "session_id", "daemon_epoch", "c_size", "d_size",
             "pid", "reserved", "version", "text"],
        ),
    ],
)  # fmt: skip
def test_the_formats_are_those_of_the_header(name, structure, fields):
    """Each field is filled with a pattern by Python and found again by the C structure."""
    kind = f"struct reef_{name}"
    assert structure.size == ffi.sizeof(kind)
    assert fields == [field for field, _ in ffi.typeof(kind).fields]
    members = dict(ffi.typeof(kind).fields)
    sizes = [ffi.sizeof(members[field].type) for field in fields]
    assert [struct.calcsize("<" + code) for code in _codes(structure.format)] == sizes
    assert [members[field].offset for field in fields] == [sum(sizes[:i]) for i in range(len(sizes))]


def _codes(text: str) -> list[str]:
    codes, count = [], ""
    for character in text.lstrip("<"):
        if character.isdigit():
            count += character
        else:
            codes += [count + character] if character == "s" else [character] * int(count or 1)
            count = ""
    return codes


def test_the_numbers_are_those_of_the_header():
    header = (ROOT / "libreef/include/reef_abi.h").read_text()
    for name, value in (("MAGIC", "0x46454552u"), ("ABI_MAJOR", "1"), ("ABI_MINOR", "1")):
        assert f"#define REEF_{name} {value}" in header and int(value.rstrip("u"), 0) == getattr(wire, name)
    for name in ("PROBE", "OPEN", "RECLAIM"):
        assert f"REEF_REQUEST_{name} = {getattr(wire, name)}" in header


def test_probe_and_open(start):
    daemon = start()
    assert ask(daemon, hello(wire.PROBE, task=b"")) == (0, "", 0)
    assert ask(daemon, hello()) == (0, "", 3)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (b"x", errno.EPROTO, "this is not libreef"),
        (b"\0" * 128, errno.EPROTO, "magic"),
        (hello() + b"x", errno.EPROTO, "129 bytes"),
        (hello()[:-1], errno.EPROTO, "127 bytes"),
        (hello(size=4096), errno.EPROTO, "claims 4096"),
        (b"\xff" * 60000, errno.EPROTO, "magic"),
        (hello() * 40, errno.EPROTO, "bytes"),
        (hello(request=9), errno.EPROTO, "unknown request 9"),
        (hello(reserved=b"\1" * 40), errno.EPROTO, "reserved"),
        (hello(task=b"a" * 64), errno.EINVAL, "too long"),
        (hello(task=b""), errno.EINVAL, "empty"),
        (hello(task=b"\xff\xfe"), errno.EINVAL, "ASCII"),
        (hello(task=b"nobody-serves-this"), errno.ENOENT, "there are: echo"),
        (hello(task=b"\n<3>forged"), errno.ENOENT, "no task"),
        (hello(wire.RECLAIM, session=1), errno.ESTALE, "did not outlive"),
        (hello(wire.RECLAIM, session=2**64 - 1), errno.ESTALE, "did not outlive"),
        (hello(major=9, minor=3), errno.EPROTONOSUPPORT, "ABI 1.1, the client 9.3"),
        (hello(major=9)[:12], errno.EPROTONOSUPPORT, "the client 9.1"),
    ],
)
def test_a_bad_hello_is_refused_in_words(shared, message, code, words):
    status, text, descriptors = ask(shared, message)
    assert (status, descriptors) == (-code, 0) and words in text, text
    works(shared)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One daemon for many small attacks: each must leave it working for the next."""
    directory = tmp_path_factory.mktemp("shared")
    daemon = Reefd(directory)
    yield daemon
    assert "internal:" not in daemon.log()
    daemon.close()


def test_a_later_minor_version_is_served(shared):
    assert ask(shared, hello(minor=7, reserved=b"\1" * 40))[0] == 0
    assert ask(shared, hello(minor=7, size=136) + b"\2" * 8)[0] == 0


def test_libreef_of_another_abi_gets_both_versions(shared):
    """What never changes of a welcome, which is all that libreef of another major version reads."""
    with connect(shared) as connection:
        connection.send(hello(major=2))
        data = connection.recv(4096)
    assert wire.HELLO_PREFIX.unpack_from(data) == (wire.MAGIC, wire.ABI_MAJOR, wire.ABI_MINOR, wire.WELCOME.size)


def test_descriptors_that_nobody_asked_for_are_refused(shared):
    works(shared)
    shared.wait_for(lambda: not shared.regions())
    before = shared.descriptors()
    read, write = os.pipe()
    for count in (1, 2, 250):
        assert ask(shared, hello(), (read,) * count)[0] == -errno.EPROTO
        assert ask(shared, hello(wire.PROBE, task=b""), (read,) * count)[0] == -errno.EPROTO
        assert ask(shared, hello(wire.RECLAIM, session=1), (read,) * count)[0] == -errno.ESTALE
    os.close(read)
    shared.wait_for(lambda: shared.descriptors() <= before)
    with pytest.raises(BrokenPipeError):  # no copy of the reading end is left in the daemon
        os.write(write, b"x")
    os.close(write)
    works(shared)


@pytest.mark.parametrize(
    "when", ["hello", "behind the hello", "in the session", "in the session, behind an empty message"]
)
def test_a_descriptor_that_takes_long_to_close_blocks_nobody(shared, when):
    """A TCP socket that lingers makes whoever closes it last wait: an hour here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        slow = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                slow.send(b"x" * 65536)
        connection = connect(shared)
        if when.startswith("in the session"):
            connection.send(hello())
            assert answer(connection)[0] == 0
        # Stopped, the daemon cannot close its copy before this process did: the daemon's is the last one.
        shared.process.send_signal(signal.SIGSTOP)
        if when == "behind the hello":
            connection.send(hello())
        if when == "in the session, behind an empty message":
            connection.send(b"")
        socket.send_fds(connection, [hello()], [slow.fileno()])
        slow.close()
        connection.close()
        shared.process.send_signal(signal.SIGCONT)
        works(shared)
        shared.status()
        accepted.close()


def test_silent_connections_are_bounded_and_time_out(start):
    daemon = start()
    before, began = daemon.descriptors(), time.monotonic()
    silent = []
    for _ in range(4):
        silent += [connect(daemon) for _ in range(50)]
        daemon.wait_for(lambda: daemon.descriptors() <= before + 32)
    works(daemon)
    refused = 0
    for connection in silent:
        status, text, _ = answer(connection)
        refused += status == -errno.EAGAIN
        assert status in (-errno.EAGAIN, -errno.ETIMEDOUT), text
        connection.close()
    # Of 32 at most that wait none is refused but for one that comes later. Each may wait for two seconds.
    assert 0 < refused <= 200 - 32 + 1
    works(daemon)
    assert len(daemon.log().splitlines()) < 60 + (time.monotonic() - began)  # a flood is counted, not written


def test_a_client_that_speaks_in_a_session_loses_it(start):
    daemon = start()
    with connect(daemon) as connection:
        connection.send(hello())
        assert answer(connection)[0] == 0
        connection.send(b"what?")
        assert connection.recv(16) == b""
    daemon.wait_for(lambda: not daemon.regions())
    assert "the client wrote to the session socket" in daemon.log()
    works(daemon)


def test_a_client_that_does_not_take_its_answer_is_no_burden(start):
    daemon = start()
    for _ in range(12):
        connection = connect(daemon)
        connection.send(hello())
        connection.close()
    daemon.wait_for(lambda: not daemon.regions())
    works(daemon)


def test_a_peer_that_hangs_up_while_its_words_are_thrown_away(monkeypatch):
    """With an answer unread: recv() fails, between the look that said that there is a message, and the message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    disposal.prepare(ours)
    theirs.send(b"one")
    theirs.send(b"two")
    ours.send(b"an answer that nobody reads")
    look = disposal.look

    def hang_up_behind(connection, size):
        found = look(connection, size)
        theirs.close()
        return found

    monkeypatch.setattr(disposal, "look", hang_up_behind)
    disposal.Undertaker().close(ours)
    assert ours.fileno() == -1


def test_max_sessions(start):
    daemon = start({"echo.yaml": "version: 1\ntask: echo\nclass: rt\nmodel: echo:64\nmax_sessions: 2\n"})
    clients = [libreef.Client("echo", socket=daemon.socket) for _ in range(2)]
    with pytest.raises(libreef.TooManySessions, match="max_sessions"):
        libreef.Client("echo", socket=daemon.socket)
    clients.pop().close()
    daemon.wait_for(lambda: len(daemon.regions()) == 2)
    works(daemon)


def test_the_d_region_cannot_be_written_through_what_the_client_gets(start):
    daemon = start()
    with connect(daemon) as connection:
        connection.send(hello())
        _, descriptors, _, _ = socket.recv_fds(connection, 4096, 3)
        with pytest.raises(OSError) as caught:
            os.pwrite(descriptors[1], b"x", 0)
        assert caught.value.errno == errno.EBADF
        for descriptor in descriptors:
            os.close(descriptor)


def test_out_of_descriptors_it_waits_instead_of_spinning(start):
    daemon = start()
    works(daemon)
    before = daemon.descriptors()
    works(daemon)
    daemon.wait_for(lambda: not daemon.regions() and daemon.descriptors() <= before)
    limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (daemon.descriptors() + 4, limits[1]))
    with pytest.raises(libreef.TooManySessions, match="Too many open files"):
        works(daemon)
    connections = [connect(daemon) for _ in range(8)]
    daemon.wait_for_log("LimitNOFILE")
    before = _cpu_seconds(daemon)
    time.sleep(0.5)
    assert _cpu_seconds(daemon) - before < 0.3
    for connection in connections:
        connection.close()
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
    works(daemon)


def _cpu_seconds(daemon: Reefd) -> float:
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
