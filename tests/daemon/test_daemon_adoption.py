# SPDX-License-Identifier: Apache-2.0
"""A restart: sessions are taken over and claimed again by their owners, and by nobody else; planted objects are not."""

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

import libreef
from reefd import wire
from tests import ROOT

from .reefd_process import AS_USER, ECHO, NOBODY, SHM, Reefd, run_as
from .test_daemon_socket import answer, connect, hello


def echo(client: libreef.Client, value: int) -> None:
    sent = (np.arange(64) * 5 + value).astype(np.uint8)
    assert client.infer(input=sent, timeout=60)["output"].tobytes() == sent[:8].tobytes() + sent[-8:].tobytes()


class RawSession:
    """A session opened by hand, for clients that do not behave."""

    def __init__(self, daemon: Reefd) -> None:
        self.connection = connect(daemon)
        self.connection.send(hello())
        data, descriptors, _, _ = socket.recv_fds(self.connection, 4096, 3)
        self.c, self.d, self.doorbell = descriptors
        self.id = wire.WELCOME.unpack(data)[5]

    def close(self) -> None:
        for descriptor in (self.c, self.d, self.doorbell):
            os.close(descriptor)
        self.connection.close()


def claim(daemon: Reefd, session: int, *descriptors: int) -> tuple[int, str, int]:
    with connect(daemon) as connection:
        socket.send_fds(connection, [hello(wire.RECLAIM, session=session, task=b"")], list(descriptors))
        return answer(connection)


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_a_session_outlives_the_daemon(start, how):
    daemon = start()
    with libreef.Client("echo", socket=daemon.socket) as client:
        echo(client, 1)
        before = daemon.regions()
        if how == "killed":
            daemon.kill()
        else:
            assert daemon.stop(signal.SIGUSR2) == 0
        assert daemon.regions() == before and len(before) == 2
        daemon.start()
        echo(client, 2)
        assert daemon.regions() == before
        assert "adopted" in daemon.log()
        daemon.wait_for(lambda: daemon.status()["sessions"][0]["connected"])
        echo(client, 3)
    daemon.wait_for(lambda: not daemon.regions())
    assert daemon.stop() == 0 and daemon.shm() == []


def test_a_client_that_waits_is_answered_by_the_next_daemon(start):
    daemon = start()
    with libreef.Client("echo", socket=daemon.socket) as client:
        echo(client, 1)
        daemon.kill()
        later = threading.Timer(0.3, daemon.start)
        later.start()
        echo(client, 2)
        later.join()


def test_a_new_session_after_a_restart_has_a_new_name(start):
    daemon = start()
    with libreef.Client("echo", socket=daemon.socket) as old:
        daemon.kill()
        daemon.start()
        with libreef.Client("echo", socket=daemon.socket) as new:
            echo(old, 1)
            echo(new, 2)
            assert len(daemon.regions()) == 4


def test_a_session_that_nobody_claims_is_dropped(start):
    daemon = start()
    config = daemon.manifest_dir.parent / "reefd.yaml"
    config.write_text("reclaim_timeout: 300ms\n")
    raw = RawSession(daemon)
    daemon.kill()
    daemon.options = ("--config", config)
    daemon.start()
    daemon.wait_for_log("nobody came back")
    daemon.wait_for(lambda: not daemon.regions())
    status, text, _ = claim(daemon, raw.id, raw.c)
    assert status == -errno.ESTALE, text
    raw.close()


def test_a_claim_needs_the_region_itself(start):
    daemon = start()
    raw, other = RawSession(daemon), RawSession(daemon)
    assert claim(daemon, raw.id, raw.c)[0] == -errno.ESTALE  # nothing to claim: this daemon opened it
    daemon.kill()
    daemon.start()
    read, write = os.pipe()
    assert claim(daemon, raw.id)[0] == -errno.EPROTO
    for wrong in (read, raw.d, other.c, raw.doorbell):
        status, text, descriptors = claim(daemon, raw.id, wrong)
        assert (status, descriptors) == (-errno.ESTALE, 0), text
    assert claim(daemon, raw.id, raw.c, raw.c)[::2] == (0, 3)
    daemon.wait_for(lambda: len(daemon.regions()) == 2)  # that claimant has hung up again
    with connect(daemon) as connection:
        socket.send_fds(connection, [hello(wire.RECLAIM, session=other.id, task=b"")], [other.c])
        assert answer(connection)[::2] == (0, 3)
        assert claim(daemon, other.id, other.c)[0] == -errno.EBUSY
    for descriptor in (read, write):
        os.close(descriptor)
    raw.close()
    other.close()


CLAIM = """
import socket, struct, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(sys.argv[1])
socket.send_fds(connection, [bytes.fromhex(sys.argv[2])], [0])
print(struct.unpack_from("<i", connection.recv(4096), 12)[0])
"""


@pytest.mark.as_root
def test_a_claim_by_another_user_is_refused(start):
    daemon = start({"echo.yaml": ECHO + f"allow: {{users: [{NOBODY}]}}\n"})
    raw = RawSession(daemon)  # root's
    daemon.kill()
    daemon.start()
    message = hello(wire.RECLAIM, session=raw.id, task=b"").hex()
    assert run_as(NOBODY, CLAIM, daemon.socket, message).stdout == f"{-errno.EACCES}\n"
    assert claim(daemon, raw.id, raw.c)[0] == 0
    raw.close()


@pytest.mark.as_root
def test_a_user_who_lost_the_right_cannot_claim(start):
    daemon = start({"echo.yaml": ECHO + f"allow: {{users: [{NOBODY}]}}\n"})
    code = f"""
import libreef, numpy, sys
client = libreef.Client("echo", socket=sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
try:
    while True:  # the next daemon may serve some before it looks who claims the session
        client.infer(input=numpy.ones(64, numpy.uint8), timeout=60)
except libreef.ReefError as error:
    print(type(error).__name__, {NOBODY})
"""
    command = [sys.executable, str(AS_USER), str(NOBODY), "code", code, str(daemon.socket)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as client:
        assert client.stdout.readline() == "open\n"
        daemon.kill()
        (daemon.manifest_dir / "echo.yaml").write_text(ECHO)
        daemon.start()
        client.stdin.write("\n")
        client.stdin.flush()
        daemon.wait_for_log("refused:")
        assert client.stdout.readline() == f"SessionLost {NOBODY}\n"


# ---------------------------------------------------------------- what is not adopted


def planted(daemon: Reefd, session: int = 77) -> list:
    return [SHM / f"reef.{daemon.instance}.echo.{session}{suffix}" for suffix in (".c", ".d")]


def copy_of(raw: RawSession, paths: list) -> None:
    for descriptor, path in zip((raw.c, raw.d), paths, strict=True):
        path.write_bytes(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        path.chmod(0o600)


def test_objects_without_an_owner_on_record_are_removed(start):
    daemon = start()
    raw = RawSession(daemon)
    daemon.kill()
    copy_of(raw, planted(daemon))
    (SHM / f"reef.{daemon.instance}.nonsense").write_text("x")
    daemon.start()
    assert "nothing is known of its owner" in daemon.log() and "nonsense" in daemon.log()
    assert not any(path.exists() for path in planted(daemon))
    assert claim(daemon, raw.id, raw.c)[0] == 0
    (SHM / f"reef.{daemon.instance}.nonsense").unlink()
    raw.close()


@pytest.mark.parametrize("change", ["mode", "second name", "replaced", "symlink", "half", "fifo", "header", "short"])
def test_an_object_that_was_tampered_with_is_not_adopted(start, change):
    daemon = start()
    raw = RawSession(daemon)
    daemon.kill()
    c, d = planted(daemon, raw.id)
    if change == "mode":
        d.chmod(0o644)
    elif change == "second name":
        os.link(d, SHM / f"{d.name}x")
    elif change == "replaced":
        data = d.read_bytes()
        d.unlink()
        d.write_bytes(data)
        d.chmod(0o600)
    elif change == "symlink":
        d.unlink()
        d.symlink_to("/etc/hostname")
    elif change == "half":
        c.unlink()
    elif change == "fifo":
        d.unlink()
        os.mkfifo(d, 0o600)
    elif change == "header":
        with d.open("r+b") as file:
            file.seek(200)
            file.write(b"!")
    elif change == "short":
        os.truncate(c, 4096)
    daemon.start()
    assert "not-adopted:" in daemon.log()
    assert daemon.regions() == [name for name in daemon.regions() if name.endswith("x")]
    status, _, _ = claim(daemon, raw.id, raw.c)
    assert status == -errno.ESTALE
    with libreef.Client("echo", socket=daemon.socket) as client:
        echo(client, 1)
    raw.close()


@pytest.mark.as_root
def test_an_object_of_another_user_is_left_alone(start):
    daemon = start()
    raw = RawSession(daemon)
    daemon.kill()
    c, d = planted(daemon, raw.id)
    os.chown(d, NOBODY, NOBODY)
    daemon.start()
    assert "belongs to uid 65534" in daemon.log() and d.exists() and not c.exists()
    assert claim(daemon, raw.id, raw.c)[0] == -errno.ESTALE
    raw.close()


@pytest.mark.parametrize("change", ["model", "slots", "gone"])
def test_a_task_that_changed_does_not_get_the_old_sessions(start, change):
    daemon = start({"echo.yaml": ECHO, "other.yaml": ECHO.replace("task: echo", "task: other")})
    raw = RawSession(daemon)
    daemon.kill()
    file = daemon.manifest_dir / "echo.yaml"
    if change == "gone":
        file.unlink()
    else:
        file.write_text(
            ECHO.replace("echo:64", "echo:128") if change == "model" else ECHO.replace("slots: 4", "slots: 5")
        )
    daemon.start()
    assert "not-adopted:" in daemon.log() and daemon.regions() == []
    assert claim(daemon, raw.id, raw.c)[0] == -errno.ESTALE
    raw.close()


def test_records_are_checked(start):
    daemon = start()
    raws = [RawSession(daemon) for _ in range(4)]
    daemon.kill()
    records = [daemon.runtime_dir / "sessions" / str(raw.id) for raw in raws]
    records[0].write_text("{")
    records[1].write_bytes(records[2].read_bytes())
    records[2].write_text(records[2].read_text().replace('"echo"', '"../x"'))
    (daemon.runtime_dir / "sessions" / "99").write_text("stale")
    daemon.start()
    assert [claim(daemon, raw.id, raw.c)[0] for raw in raws] == [-errno.ESTALE] * 3 + [0]
    assert not (daemon.runtime_dir / "sessions" / "99").exists()
    for raw in raws:
        raw.close()


def test_a_stop_for_a_restart_keeps_no_session_that_is_gone(start):
    daemon = start()
    client = libreef.Client("echo", socket=daemon.socket)
    echo(client, 1)
    client.close()
    daemon.wait_for(lambda: not daemon.regions())
    assert daemon.stop(signal.SIGUSR2) == 0
    assert daemon.shm() == []


def test_the_epoch_changes(start):
    daemon = start()
    epochs = set()
    for _ in range(2):
        with connect(daemon) as connection:
            connection.send(hello(wire.PROBE, task=b""))
            epochs.add(struct.unpack_from("<Q", connection.recv(4096), 24)[0])
        daemon.kill()
        daemon.start()
    assert len(epochs) == 2
