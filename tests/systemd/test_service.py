# SPDX-License-Identifier: Apache-2.0
"""The installed service under a real systemd: start, clients, journal, reload, watchdog, recovery."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from reefd import journal
from tests import ROOT

from .machine import Machine, package

pytestmark = pytest.mark.systemd

PYTHON = "/usr/lib/reefd/bin/python"
CLIENT = ROOT / "tests/systemd/client.py"
WATCHDOG_SECONDS = 2.0


def main_pid(machine: Machine) -> int:
    return int(machine.show("reefd", "MainPID"))


def serves(machine: Machine, task: str = "sin-rt") -> bool:
    return machine.run(PYTHON, CLIENT, task, 0.5).stdout == "ok True\n"


def replaced(machine: Machine, old: int, since: float) -> float:
    """Waits until another main process than `old` serves. Seconds from `since` until the service manager started it, by
    its own record: looking for it may take as long as it likes."""
    machine.wait_for(lambda: main_pid(machine) not in (0, old), 60)
    machine.wait_for(lambda: machine.show("reefd", "ActiveState") == "active", 60)
    return int(machine.show("reefd", "ExecMainStartTimestampMonotonic")) / 1e6 - since


def test_a_fresh_installation_serves_the_demo(machine):
    assert machine.show("reefd", "ActiveState") == "active"
    assert machine.show("reefd", "StatusText").startswith("serving 5 tasks, ")
    picture = machine.path("/tmp/picture.ppm")
    from PIL import Image

    Image.open(ROOT / "resource/astronaut.png").convert("RGB").save(picture)
    program = ROOT / "build/c/libreef/examples/obstacle"
    seen = machine.run(program, "/tmp/picture.ppm", 1, check=True).stdout.splitlines()
    assert len(seen) == 20
    status = json.loads(machine.run("reefctl", "status", "--json", check=True).stdout)
    task = next(task for task in status["tasks"] if task["task"] == "obstacle-detection")
    assert task["completed"] == 20


def test_units_are_verified_where_they_are_installed(machine):
    result = machine.run("systemd-analyze", "verify", "reefd.service", "reefd.socket")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_it_runs_as_its_own_user_and_hides_nothing_it_needs(machine):
    pid = main_pid(machine)
    owner = machine.run("stat", "-c", "%U", f"/proc/{pid}").stdout.strip()
    assert owner == "reefd"
    status = machine.path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status and "CapBnd:\t0000000000000000" in status
    assert "Max core file size        0                    0" in machine.path(f"/proc/{pid}/limits").read_text()


def test_a_refused_client_is_in_the_journal_with_its_fields(machine):
    text = machine.run("setpriv", "--reuid=65534", "--clear-groups", PYTHON, CLIENT, "sin-rt", 0.5)
    assert "AccessDenied" in text.stderr
    found = machine.journal("-u", "reefd", "REEF_EVENT=refused", "-o", "json", "-n", "1")
    entry = json.loads(found)
    assert entry["REEF_CODE"] == "EACCES" and entry["REEF_UID"] == "65534" and entry["PRIORITY"] == "4"
    assert entry["MESSAGE_ID"] == journal.MESSAGE_IDS["refused"] and entry["SYSLOG_IDENTIFIER"] == "reefd"
    explained = machine.journal("-u", "reefd", "REEF_EVENT=refused", "-x", "-n", "1")
    assert "A client was refused" in explained


def test_a_bad_manifest_leaves_everything_as_it_was(machine):
    pid = main_pid(machine)
    bad = machine.path("/etc/reefd/tasks.d/bad.yaml")
    bad.write_text("version: 1\ntask: bad\nclass: rx\nmodel: echo:64\n")
    direct = machine.run("reefctl", "reload")
    assert direct.returncode == 1 and "/etc/reefd/tasks.d/bad.yaml:3:8: class: got" in direct.stderr
    assert machine.systemctl("reload", "reefd", check=False).returncode == 1
    assert "reload refused: /etc/reefd/tasks.d/bad.yaml:3:8" in machine.show("reefd", "StatusText")
    assert "code=exited, status=1" in machine.systemctl("status", "reefd", check=False).stdout
    assert machine.show("reefd", "ActiveState") == "active" and main_pid(machine) == pid
    assert serves(machine)
    bad.write_text("version: 1\ntask: bad\nclass: rt\nmodel: echo:64\n")
    machine.systemctl("reload", "reefd")
    assert machine.show("reefd", "StatusText").startswith("serving 6 tasks")
    bad.unlink()
    machine.systemctl("reload", "reefd")
    assert machine.show("reefd", "StatusText").startswith("serving 5 tasks") and main_pid(machine) == pid


def test_a_service_that_cannot_start_is_tried_until_it_can(machine):
    """Not at once, again and again; and nobody has to call `reset-failed`."""
    file = machine.path("/etc/reefd/reefd.yaml")
    good = file.read_text()
    file.write_text(good + "workers: many\n")
    assert machine.systemctl("restart", "reefd", check=False).returncode == 1
    entry = json.loads(machine.journal("-u", "reefd", "REEF_EVENT=start", "-o", "json", "-n", "1"))
    assert "/etc/reefd/reefd.yaml:" in entry["MESSAGE"] and entry["MESSAGE_ID"] == journal.MESSAGE_IDS["start"]
    waits = "cannot start, the log says why"
    machine.wait_for(lambda: machine.show("reefd", "StatusText").startswith(waits))
    machine.systemctl("stop", "reefd")
    machine.wait_for(lambda: machine.show("reefd", "ActiveState") == "inactive")  # as told, and not failed
    assert machine.systemctl("start", "reefd", check=False).returncode == 1
    file.write_text(good)
    machine.wait_for(lambda: machine.show("reefd", "ActiveState") == "active")
    assert serves(machine)


def test_a_program_that_is_not_there_is_not_tried_for_ever(machine):
    program = machine.path("/usr/bin/reefd")
    aside = program.with_name("reefd.aside")
    program.rename(aside)
    try:
        assert machine.systemctl("restart", "reefd", check=False).returncode == 1
        assert machine.show("reefd", "ActiveState") == "failed" and machine.show("reefd", "ExecMainStatus") == "203"
    finally:
        aside.rename(program)
    machine.systemctl("start", "reefd")
    assert serves(machine)


def test_a_killed_daemon_is_followed_without_a_pause(machine):
    """Any other pause than none is a timer that comes up to 250 ms late. And systemd does not give it up, however often
    it is killed: what ends a daemon may be a client's doing."""
    assert machine.show("reefd", "RestartUSec") == "0"
    for _ in range(25):
        old = main_pid(machine)
        machine.run("kill", "-KILL", old, check=True)
        machine.wait_for(lambda old=old: main_pid(machine) not in (0, old))
    assert serves(machine)


# ---------------------------------------------------------------- the watchdog


def hold(machine: Machine, pid: int, name: str) -> list[subprocess.Popen[str]]:
    """Stops the threads of a process whose names begin so, by ptrace, until the holders are killed."""
    threads = [t for t in machine.path(f"/proc/{pid}/task").iterdir() if (t / "comm").read_text().startswith(name)]
    program = ROOT / "tests/daemon/hold_thread.py"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holders = [machine.start("/usr/bin/python3", program, thread.name, **pipes) for thread in threads]
    assert holders and all(holder.stdout.readline() == "held\n" for holder in holders)
    return holders


def test_a_stopped_process_is_replaced(machine):
    old = main_pid(machine)
    client = machine.start(PYTHON, CLIENT, "sin-rt", 0.5, 1, stdout=subprocess.PIPE)
    assert client.communicate(timeout=60)[0] == "ok True\n"
    since = time.monotonic()
    machine.run("kill", "-STOP", old, check=True)
    waiting = machine.start(PYTHON, CLIENT, "sin-rt", 0.25, stdout=subprocess.PIPE)
    assert replaced(machine, old, since) <= WATCHDOG_SECONDS + 1
    assert waiting.communicate(timeout=60)[0] == "ok True\n"
    assert machine.show("reefd", "Result") in ("success", "watchdog")


def test_a_held_engine_thread_is_noticed(machine):
    old = main_pid(machine)
    (holder,) = hold(machine, old, "reef-engine")
    since = time.monotonic()
    waiting = machine.start(PYTHON, CLIENT, "sin-be", 0.25, stdout=subprocess.PIPE)
    assert replaced(machine, old, since) <= WATCHDOG_SECONDS + 1
    holder.kill()
    assert waiting.communicate(timeout=60)[0] == "ok True\n"


@pytest.mark.parametrize("task", ["sin-rt", "sin-be"])
def test_an_endless_kernel_costs_its_request_and_nobody_else(machine, task):
    old = main_pid(machine)
    other = machine.start(PYTHON, CLIENT, "sin-rt" if task == "sin-be" else "sin-be", 0.5, 1, stdout=subprocess.PIPE)
    assert other.communicate(timeout=60)[0] == "ok True\n"
    # Good requests first: the guilty one is submitted at once after the last of them was answered.
    guilty = machine.start(PYTHON, CLIENT, task, 0.5, 1, 1e6, stdout=subprocess.PIPE)
    assert guilty.stdout.readline() == "ok True\n"
    since = time.monotonic()
    time.sleep(0.3)
    # Behind the guilty one: accepted, waiting or running when the daemon ends, answered by the next.
    behind = machine.start(PYTHON, CLIENT, task, 0.25, stdout=subprocess.PIPE)
    assert replaced(machine, old, since) <= WATCHDOG_SECONDS + 1
    assert guilty.communicate(timeout=60)[0].split()[1] == "-5"  # -EIO
    assert behind.communicate(timeout=60)[0] == "ok True\n"
    entry = json.loads(machine.journal("-u", "reefd", "REEF_EVENT=device-stuck", "-o", "json", "-n", "1"))
    assert entry["REEF_TASK"] == task and entry["MESSAGE_ID"] == journal.MESSAGE_IDS["device-stuck"]


def test_a_device_that_never_completes_ends_the_daemon(machine):
    """The workers of the device do not come back while requests come in; nothing else of the daemon is held."""
    old = main_pid(machine)
    count = 10_000
    client = machine.start(PYTHON, CLIENT, "sin-rt", 0.25, count, stdout=subprocess.PIPE)
    assert client.stdout.readline() == "ok True\n"
    holders = hold(machine, old, "reef-cu")
    since = time.monotonic()
    answers: list[str] = []
    reader = threading.Thread(target=lambda: answers.extend(client.stdout))
    reader.start()
    assert replaced(machine, old, since) <= WATCHDOG_SECONDS + 1
    for holder in holders:
        holder.kill()
    reader.join(120)
    assert client.wait(10) == 0 and len(answers) == count - 1
    # So far as the daemon can know it is the request that the device does not answer; all others are answered.
    assert answers.count("DeviceFailed -5\n") == 1 and answers.count("ok True\n") == count - 2
    assert machine.show("reefd", "Result") in ("success", "exit-code")


def test_a_request_that_crashes_the_daemon_twice_is_rejected(machine):
    old = main_pid(machine)
    guilty = machine.start(PYTHON, CLIENT, "sin-be", 2e6, stdout=subprocess.PIPE)
    assert guilty.communicate(timeout=60)[0].split()[1] == "-5"
    assert main_pid(machine) != old
    entry = json.loads(machine.journal("-u", "reefd", "REEF_EVENT=rejected", "-o", "json", "-n", "1"))
    assert "2 times by its fault, in 2 runs" in entry["MESSAGE"]
    assert int(machine.show("reefd", "NRestarts")) >= 2
    assert serves(machine)


# ---------------------------------------------------------------- replacing the package


def loads(machine: Machine) -> list[subprocess.Popen[str]]:
    program = ROOT / "tests/daemon/load_client.py"
    started = [
        machine.start(
            PYTHON, program, "/run/reefd/reef.sock", task, seed, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for seed, task in enumerate(("echo", "sin-rt", "sin-be"))
    ]
    assert all(load.stdout.readline() == "ready\n" for load in started)
    return started


def install(machine: Machine, folder: Path, version: str, abi: int) -> str:
    """Installs the package once more, as another version that speaks this ABI; what dpkg printed."""
    subprocess.run(["dpkg-deb", "-R", package(), folder], check=True)
    control = folder / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: ", f"Version: {version}."))
    (wire,) = folder.glob("usr/lib/reefd/lib/python*/site-packages/reefd/wire.py")
    wire.write_text(wire.read_text().replace("ABI_MAJOR = 1\n", f"ABI_MAJOR = {abi}\n"))
    for compiled in wire.parent.glob("__pycache__/wire.*.pyc"):  # checked against nothing
        compiled.unlink()
    preinst = folder / "DEBIAN/preinst"
    preinst.write_text(preinst.read_text().replace("abi=1.", f"abi={abi}."))
    abi_file = folder / "usr/lib/reefd/abi"
    abi_file.write_text(abi_file.read_text().replace("1.", f"{abi}."))
    target = machine.path("/srv/other.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", folder, target], check=True, capture_output=True)
    printed = machine.run("dpkg", "-i", "/srv/other.deb", check=True)
    target.unlink()
    return printed.stdout + printed.stderr


def test_an_upgrade_under_load_loses_nothing(machine, tmp_path):
    old = main_pid(machine)
    clients = loads(machine)
    assert "ABI" not in install(machine, tmp_path / "newer", "8", 1)
    assert main_pid(machine) not in (0, old)
    time.sleep(0.5)
    for client in clients:
        account = json.loads(client.communicate(timeout=120)[0])
        assert account["submitted"] == account["completed"] > 0, account
        assert account["wrong"] == account["twice"] == account["failed"] == 0, account


def test_another_abi_is_refused_in_words(machine, tmp_path):
    """The operator hears of it from dpkg, a client that is running and one that comes from the daemon."""
    running = machine.start(PYTHON, CLIENT, "sin-rt", 0.5, 1_000_000, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout.readline() == "ok True\n"
    printed = install(machine, tmp_path / "other", "9", 2)
    assert (
        "reefd: this version speaks ABI 2.1, the one before spoke 1.1: running clients lose their sessions" in printed
    )
    words = "speaks ABI 2.1, this libreef speaks 1.1: install the libreef that came with it"
    assert words in running.communicate(timeout=60)[1]
    late = machine.run(PYTHON, CLIENT, "sin-rt", 0.5)  # only the daemon was changed: libreef is that of before
    assert "AbiMismatch" in late.stderr and "speaks ABI 2.1, this libreef" in late.stderr
    printed = install(machine, tmp_path / "back", "91", 1)
    assert "this version speaks ABI 1.1, the one before spoke 2.1" in printed and serves(machine)


def test_removal_ends_it_and_purge_leaves_nothing(machine):
    machine.run("dpkg", "-r", "reefd", check=True)
    assert machine.run("systemctl", "is-active", "reefd.service", "reefd.socket").stdout.split() == ["inactive"] * 2
    assert machine.path("/etc/reefd/reefd.yaml").exists() and machine.path("/var/lib/reefd").exists()
    assert [p.name for p in machine.path("/dev/shm").iterdir() if p.name.startswith("reef.")] == []
    machine.run("dpkg", "-P", "reefd", check=True)
    machine.run("rm", "-f", "/etc/systemd/system/reefd.service.d/test.conf", "/usr/lib/reefd/faults.so")
    for path in ("/etc/reefd", "/var/lib/reefd", "/run/reefd", "/usr/bin/reefd", "/usr/bin/reefctl"):
        assert not machine.path(path).exists(), path
    assert [path for path in machine.path("/usr/lib").glob("reefd/**/*") if path.is_file()] == []
    units = machine.run("systemctl", "list-unit-files", "--no-legend", "reefd*").stdout
    assert units == ""
