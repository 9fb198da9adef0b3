# SPDX-License-Identifier: Apache-2.0
"""The daemon's life: start, stop, what is left behind, and who may run beside whom."""

import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import libreef

from .reefd_process import ECHO, NOBODY, PATIENCE, SHM, Reefd
from .test_daemon_socket import connect


def echo(daemon: Reefd, value: int = 7) -> None:
    """One request, checked."""
    with libreef.Client("echo", socket=daemon.socket) as client:
        sent = (np.arange(64) * 3 + value).astype(np.uint8)
        answer = client.infer(input=sent)["output"]
        assert answer.tobytes() == sent[:8].tobytes() + sent[-8:].tobytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_nothing_behind(start, number):
    daemon = start()
    client = libreef.Client("echo", socket=daemon.socket)
    client.infer(input=np.ones(64, np.uint8))
    assert daemon.regions() == [f"reef.{daemon.instance}.echo.1.c", f"reef.{daemon.instance}.echo.1.d"]
    for name in daemon.regions():
        found = (SHM / name).stat()
        assert stat.S_IMODE(found.st_mode) == 0o600 and found.st_uid == os.geteuid()
    assert daemon.stop(number) == 0
    assert daemon.shm() == []
    assert [path.name for path in daemon.runtime_dir.rglob("*")] == ["sessions"]
    with pytest.raises(libreef.ReefError):
        client.infer(input=np.ones(64, np.uint8), timeout=5)
    client.close()


def test_a_client_that_goes_takes_its_regions_along(start):
    daemon = start()
    records = daemon.runtime_dir / "sessions"
    clients = [libreef.Client("echo", socket=daemon.socket) for _ in range(3)]
    assert len(daemon.regions()) == 6 and len(list(records.iterdir())) == 3
    for client in clients:
        client.close()
    daemon.wait_for(lambda: not daemon.regions() and not list(records.iterdir()))
    echo(daemon)


def test_no_descriptor_is_lost(start):
    daemon = start()
    echo(daemon)
    daemon.wait_for(lambda: not daemon.regions())
    before = daemon.descriptors()
    for value in range(30):
        echo(daemon, value)
    daemon.wait_for(lambda: not daemon.regions())
    daemon.wait_for(lambda: daemon.descriptors() <= before)


def test_two_instances_side_by_side(start):
    first, second = start(name="a"), start(name="b")
    echo(first)
    echo(second)
    assert first.stop() == 0
    echo(second)


def test_one_instance_runs_once(start):
    first = start(name="a")
    second = start(name="b", instance=first.instance, wait=False)
    holder = f"pid {first.process.pid}"
    assert second.ended() == 1
    assert holder in second.log() and "--instance" in second.log()
    echo(first)


def test_one_runtime_directory_has_one_daemon(start):
    first = start()
    log = first.log_file.read_text
    holder = f"pid {first.process.pid}"
    second = start(instance=f"{first.instance}-other", wait=False)
    assert second.ended() == 1
    assert holder in log() and "--runtime-dir" in log()
    echo(first)


def test_a_killed_daemon_is_not_in_the_way(start):
    daemon = start()
    daemon.kill()
    assert f"reef.{daemon.instance}.lock" in daemon.shm()
    daemon.start()
    echo(daemon)
    assert daemon.stop() == 0 and daemon.shm() == []


def test_sighup_does_not_end_it(start):
    daemon = start()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for_log("reload:")
    echo(daemon)


@pytest.mark.as_root
def test_an_ordinary_user_can_run_it(start):
    face = "version: 1\ntask: face\nclass: be\nmodel: face_detector\n"
    daemon = start({"echo.yaml": ECHO, "face.yaml": face}, user=NOBODY)
    echo(daemon)
    with libreef.Client("face", socket=daemon.socket) as client:
        client.infer(image=np.zeros((1, 3, 128, 128), np.float32))
        assert all((SHM / name).stat().st_uid == NOBODY for name in daemon.regions())
    assert daemon.stop() == 0 and daemon.shm() == []


@pytest.mark.as_root
def test_a_planted_lock_is_not_followed(start, directory):
    daemon = start()
    daemon.stop()
    lock, target = SHM / f"reef.{daemon.instance}.lock", directory / "target"
    lock.touch()
    os.chown(lock, NOBODY, NOBODY)
    daemon.start(wait=False)
    assert daemon.ended() == 1 and lock.name in daemon.log()
    lock.unlink()
    lock.symlink_to(target)
    daemon.start(wait=False)
    assert daemon.ended() == 1 and lock.name in daemon.log() and not target.exists()


def test_a_client_may_be_there_first(start):
    daemon = start()
    daemon.stop()
    code = "import libreef, sys; libreef.Client('echo', socket=sys.argv[1], timeout=60); print('there')"
    waiting = subprocess.Popen([sys.executable, "-c", code, daemon.socket], stdout=subprocess.PIPE)
    with pytest.raises(libreef.DaemonUnreachable):
        libreef.Client("echo", socket=daemon.socket, timeout=0)
    daemon.start()
    assert waiting.communicate(timeout=60)[0] == b"there\n"


def test_the_daemon_imports_nothing_heavy(start):
    daemon = start()
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert not [name for name in ("numpy", "onnx", "cyclopts", "rich") if f"/{name}/" in maps]


def test_a_daemon_that_serves_networks_has_not_imported_numpy(start):
    """A third of a restart would be numpy: the weights go to the engine as the bytes that they are."""
    daemon = start({"face.yaml": "version: 1\ntask: face\nclass: be\nmodel: face_detector\n"})
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "_engine" in maps and "numpy" not in maps


def memory_pages(pid: int) -> int:
    """Of a process, or of what is left of it."""
    file = Path(f"/proc/{pid}/statm")
    return int(file.read_text().split()[0]) if file.exists() else 0


def keeper_of(daemon: Reefd) -> int:
    pid = daemon.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (keeper,) = [int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "reef-memory\n"]
    return keeper


def test_descriptors_close_at_death_before_the_memory_goes(start):
    """A process of its own holds the memory until the daemon has ended: a client that polls does not wait for that."""
    daemon = start()
    keeper = keeper_of(daemon)
    assert len(list(Path(f"/proc/{keeper}/fd").iterdir())) == 1  # the pidfd, and nothing of the daemon's
    with connect(daemon) as connection:
        os.kill(keeper, signal.SIGSTOP)
        try:
            daemon.kill()
            poller = select.poll()
            poller.register(connection, select.POLLIN)
            assert poller.poll(PATIENCE * 1000)
            assert memory_pages(keeper) > 0
        finally:
            os.kill(keeper, signal.SIGCONT)
    daemon.wait_for(lambda: memory_pages(keeper) == 0)


def test_a_daemon_does_without_the_keeper_of_its_memory(start):
    daemon = start()
    keeper = keeper_of(daemon)
    os.kill(keeper, signal.SIGKILL)
    echo(daemon)
    assert daemon.stop() == 0 and daemon.shm() == []
