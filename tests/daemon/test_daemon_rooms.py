# SPDX-License-Identifier: Apache-2.0
"""Single rooms of the daemon: the log's limits, the watchdog's words to systemd, percentiles, the control socket."""

import io
import json
import socket
import subprocess
import sys
import time

import pytest

from reefd.cli_status import NoDaemon, ask, table
from reefd.log import Log
from reefd.status import percentile, summary
from tests import ROOT

from .reefd_process import run_as


def test_the_log_limits_what_one_user_can_cause():
    stream = io.StringIO()
    log = Log("info", stream)
    began = time.monotonic()
    for number in range(1000):
        log.client("warning", "refused", f"number {number}", uid=7)
    log.client("warning", "refused", "somebody else", uid=8)
    log.error("start", "the daemon's own")
    lines = stream.getvalue().splitlines()
    assert len(lines) < 30 + (time.monotonic() - began) and "somebody else" in lines[-2] and "own" in lines[-1]


def test_the_log_is_one_printable_line_for_each_event():
    stream = io.StringIO()
    log = Log("info", stream)
    log.client("warning", "refused", "a\nreefd: error: forged\x1b[2J", uid=7, task="x\ny", pid=None)
    assert stream.getvalue() == "reefd: warning: refused: a\\x0areefd: error: forged\\x1b[2J (task=x\\x0ay uid=7)\n"
    log.debug("detail", "not at this level")
    assert stream.getvalue().count("\n") == 1


def test_percentiles():
    histogram = {"count": 100, "sum_ns": 100_000, "max_ns": 9_500, "buckets": [(1_000, 50), (2_000, 49), (10_000, 1)]}
    assert [percentile(histogram, share) for share in (0.5, 0.51, 0.99, 0.999)] == [1000, 2000, 2000, 9500]
    assert summary(histogram) == {
        "count": 100, "mean_us": 1.0, "max_us": 9.5, "p50_us": 1.0, "p90_us": 2.0, "p99_us": 2.0, "p999_us": 9.5,
    }  # fmt: skip
    assert summary({"count": 0, "sum_ns": 0, "max_ns": 0, "buckets": []})["p99_us"] == 0


def test_tables_line_up():
    assert table([["NAME", "N"], ["a", "10"], ["long", "9"]]) == ["NAME   N", "a     10", "long   9"]


def test_systemd_is_told(start, directory, monkeypatch):
    """READY=1 after the models, WATCHDOG=1 while the engine turns, STOPPING=1 at the end."""
    path = str(directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(path)
        channel.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        daemon = start()
        messages = []
        while messages.count("WATCHDOG=1") < 3:
            messages += channel.recv(4096).decode().split("\n")
        assert messages.index("READY=1") < messages.index("WATCHDOG=1")
        assert any(message.startswith("STATUS=serving 1 tasks") for message in messages)
        daemon.stop()
        channel.settimeout(0.1)
        with pytest.raises(TimeoutError):
            while True:
                messages += channel.recv(4096).decode().split("\n")
        assert "STOPPING=1" in messages


def test_status(start):
    daemon = start()
    found = daemon.status()
    assert found["instance"] == daemon.instance and found["device"]["name"] == "cpu"
    assert [task["task"] for task in found["tasks"]] == ["echo"] and found["sessions"] == []
    command = [
        sys.executable,
        "-c",
        "from reefd.cli import main; main()",
        "status",
        "--runtime-dir",
        daemon.runtime_dir,
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert shown.returncode == 0 and "echo" in shown.stdout
    as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert json.loads(as_json.stdout)["pid"] == daemon.process.pid
    daemon.stop()
    gone = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert gone.returncode == 1 and "is reefd running?" in gone.stderr


def test_status_imports_nothing_slow():
    code = "import sys, reefd.cli, reefd.cli_status; print({'numpy', 'rich', 'reefd._engine'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout == "set()\n", done


BAD_REQUESTS = [b"{", b"{}\n", b'{"verb": "explode"}\n', b"x" * 5000, b"\xff\n", b'{"verb": 7}\n']


@pytest.mark.parametrize("request_line", BAD_REQUESTS)
def test_bad_requests_to_the_control_socket(start, request_line):
    daemon = start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(daemon.runtime_dir / "control.sock"))
        connection.settimeout(60)
        connection.sendall(request_line)
        answer = connection.recv(4096)
        assert answer == b"" or "error" in json.loads(answer)
    assert daemon.status()["pid"] == daemon.process.pid


@pytest.mark.as_root
def test_the_control_socket_is_private(start):
    daemon = start()
    path = daemon.runtime_dir / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    assert "PermissionError" in run_as(65534, code, path).stderr
    path.chmod(0o666)  # even so
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9))"
    assert run_as(65534, code, path).stdout == "b''\n"
    with pytest.raises(NoDaemon):
        ask(daemon.runtime_dir / "nothing.sock", "status")
