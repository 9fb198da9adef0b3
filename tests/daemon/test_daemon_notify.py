# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells systemd: every state, in order, and where its log and its socket are systemd's."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import libreef
from reefd import journal, notify
from reefd.cli_status import ask
from tests import ROOT

from .reefd_process import ECHO, PATIENCE, Reefd


class Manager:
    """Stands in for systemd: receives the datagrams."""

    def __init__(self, directory: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = directory / "notify"
        self.socket.bind(str(self.path))
        self.socket.settimeout(PATIENCE)
        self.messages: list[dict[str, str]] = []

    def until(self, key: str, value: str = "1") -> list[dict[str, str]]:
        """Everything that came since the last call, up to this message."""
        start = len(self.messages)
        while not (self.messages[start:] and self.messages[-1].get(key) == value):
            text = self.socket.recv(4096).decode()
            self.messages.append(dict(line.split("=", 1) for line in text.splitlines()))
        return self.messages[start:]

    def drain(self) -> None:
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(4096)
        except BlockingIOError:
            self.socket.settimeout(PATIENCE)


@pytest.fixture
def manager(directory, monkeypatch):
    manager = Manager(directory)
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    yield manager
    manager.socket.close()


def test_states_from_start_to_stop(start, manager):
    face = "version: 1\ntask: face\nclass: be\nmodel: face_detector\n"
    daemon = start({"echo.yaml": ECHO, "face.yaml": face})
    messages = manager.until("READY")
    status = [message["STATUS"] for message in messages if "STATUS" in message]
    assert status == ["loading echo (1 of 2)", "loading face (2 of 2)", "serving 2 tasks, 0 sessions"]

    (daemon.manifest_dir / "more.yaml").write_text(ECHO.replace("task: echo", "task: more"))
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    ask(daemon.runtime_dir / "control.sock", "reload")
    messages = manager.until("READY")
    reloading = next(message for message in messages if message.get("RELOADING") == "1")
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert messages[-1]["STATUS"] == "serving 3 tasks, 0 sessions"

    assert daemon.stop() == 0
    assert manager.until("STOPPING")[-1]["STATUS"] == "ending the sessions"


def test_what_takes_long_asks_for_more_time_until_it_is_over(manager, monkeypatch):
    monkeypatch.setattr(notify, "_PAUSE_SECONDS", 0.01)
    with notify.patience(60):
        for _ in range(3):
            manager.until("EXTEND_TIMEOUT_USEC", "10000000")
    manager.drain()
    with notify.patience(0.0):  # its time is over
        time.sleep(0.1)
    manager.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        manager.until("EXTEND_TIMEOUT_USEC", "10000000")


@pytest.mark.parametrize("broken", ["configuration", "manifests"])
def test_a_start_that_fails_holds_the_manager_back(manager, directory, broken):
    """systemd tries again at once: the daemon waits before it ends, unless it is asked to end."""
    file = directory / "reefd.yaml"
    file.write_text("workers: many\n" if broken == "configuration" else f"manifest_dir: {directory}/nowhere\n")
    places = ("--runtime-dir", directory / "other", "--instance", f"test-{os.getpid()}-broken")
    program = [sys.executable, "-m", "reefd", "--config", file, *places]
    daemon = subprocess.Popen([*map(str, program)], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert manager.until("STATUS", "cannot start, the log says why; another try every 5 s")
    daemon.send_signal(signal.SIGTERM)
    words = daemon.communicate(timeout=PATIENCE)[1]
    assert daemon.returncode == 0 and ("reefd.yaml:1:10: workers" if broken == "configuration" else "nowhere") in words


def test_a_refused_reload_says_so_and_is_ready_again(start, manager):
    daemon = start()
    manager.until("READY")
    (daemon.manifest_dir / "bad.yaml").write_text("version: 1\ntask: bad\nclass: rx\nmodel: echo:64\n")
    daemon.process.send_signal(signal.SIGHUP)
    status = manager.until("READY")[-1]["STATUS"]
    assert status.startswith("serving 1 tasks, 0 sessions; reload refused: ") and "bad.yaml:3:8: class" in status


def test_a_restart_is_announced_as_one(start, manager):
    daemon = start()
    manager.until("READY")
    assert daemon.stop(signal.SIGUSR2) == 0
    assert manager.until("STOPPING")[-1]["STATUS"] == "leaving the sessions to the next daemon"


def test_the_watchdog_is_fed_while_the_engine_gets_on(start, manager, monkeypatch):
    """And not by a timer: with the engine thread gone from the processor there is nothing more to hear."""
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    daemon = start()
    for _ in range(5):
        manager.until("WATCHDOG")
    holder = hold_thread(daemon.process.pid, "reef-engine")
    try:
        manager.drain()
        manager.socket.settimeout(1.5)
        late = 0  # what it had decided to send before the thread was held: on a busy machine it comes now
        with pytest.raises(TimeoutError):
            while late <= 2:
                manager.until("WATCHDOG")
                late += 1
    finally:
        holder.communicate("", timeout=PATIENCE)
    manager.socket.settimeout(PATIENCE)
    manager.until("WATCHDOG")


def hold_thread(pid: int, name: str) -> subprocess.Popen:
    """Stops one thread by ptrace until the holder's standard input is closed."""
    thread = next(t for t in Path(f"/proc/{pid}/task").iterdir() if (t / "comm").read_text().strip() == name)
    program = Path(__file__).with_name("hold_thread.py")
    command = [sys.executable, str(program), thread.name]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_socket_that_systemd_listens_on_is_used_and_left(directory):
    """LISTEN_FDS: a client that connects before the daemon runs waits in the queue, and the path stays afterwards."""
    place = directory / "only"
    place.mkdir()
    path = directory / "given.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(8)
        code = "import libreef, sys; c = libreef.Client('echo', socket=sys.argv[1], timeout=60); print('there')"
        early = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        time.sleep(0.3)
        (place / "tasks.d").mkdir()
        (place / "tasks.d/echo.yaml").write_text(ECHO)
        name = f"test-{os.getpid()}-given"
        arguments = ["--instance", name, "--runtime-dir", place / "run", "--manifest-dir", place / "tasks.d"]
        launcher = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
        launcher += "os.execv(sys.executable, [sys.executable, '-m', 'reefd', *sys.argv[2:]])"
        daemon = subprocess.Popen(
            [sys.executable, "-c", launcher, str(listener.fileno()), *map(str, arguments)],
            env={**os.environ, "LISTEN_FDS": "1"}, pass_fds=[listener.fileno()], cwd=ROOT,
        )  # fmt: skip
        try:
            assert early.communicate(timeout=PATIENCE)[0] == b"there\n"
            with libreef.Client("echo", socket=path) as client:
                client.infer(input=np.ones(64, np.uint8))
            assert not (place / "run/reef.sock").exists()
        finally:
            daemon.terminate()
            assert daemon.wait(PATIENCE) == 0
        assert path.exists()


def test_entries_of_the_journal_have_fields(directory, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(directory / "journal"))
        entries = journal.Journal(str(directory / "journal"))
        assert entries.send(4, "quarantine", "one\ntwo", {"task": "echo", "session": 7, "code": None})
        data = listener.recv(4096)
    text = b"one\ntwo"
    assert data.startswith(b"MESSAGE\n" + struct.pack("<Q", len(text)) + text + b"\nPRIORITY=4\n")
    fields = set(data.splitlines())
    assert {b"REEF_EVENT=quarantine", b"REEF_TASK=echo", b"REEF_SESSION=7", b"SYSLOG_IDENTIFIER=reefd"} <= fields
    assert f"MESSAGE_ID={journal.MESSAGE_IDS['quarantine']}".encode() in fields
    assert not any(field.startswith(b"REEF_CODE") for field in fields)
    assert not journal.Journal(str(directory / "nobody")).send(4, "ready", "", {})


def test_stderr_is_the_journal_only_where_systemd_says_so(monkeypatch):
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    assert journal.is_stderr()
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
    assert not journal.is_stderr()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not journal.is_stderr()


def test_daemons_without_systemd_tell_nobody(start, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    daemon: Reefd = start()
    assert daemon.stop() == 0
