# SPDX-License-Identifier: Apache-2.0
"""Daemons and clients are killed at random instants under load: nothing lost, nothing twice, every answer right.

REEF_KILLS is the number of kills; `make test-kill` makes it 10,000.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .reefd_process import ECHO, Reefd

KILLS = int(os.environ.get("REEF_KILLS", "50"))
CLIENT_KILLS = int(os.environ.get("REEF_CLIENT_KILLS", "300"))
OUTAGE_NS = 20_000_000  # load_client.py's: a shorter pause is none
SEED = int(os.environ.get("REEF_SEED", "1"))
MANIFESTS = {
    "echo.yaml": ECHO,
    "face.yaml": "version: 1\ntask: face\nclass: be\nmodel: face_detector\nslots: 2\n",
    "iris.yaml": "version: 1\ntask: iris\nclass: rt\nmodel: iris\nslots: 2\n",
}


class Load:
    """A client process on one task."""

    def __init__(self, daemon: Reefd, task: str, seed: int) -> None:
        program = Path(__file__).with_name("load_client.py")
        command = [sys.executable, str(program), str(daemon.socket), task, str(seed)]
        self.task = task
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def account(self) -> dict[str, int]:
        """Ends it when all that it submitted is completed."""
        out, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, (self.task, self.process.returncode)
        return json.loads(out)


def service_back(outages_ns: list[tuple[int, int]], kills_ns: list[int]) -> list[int]:
    """For each kill whose successor was not killed before it answered: the time to the first completion, sorted."""
    back = []
    for before, after in outages_ns:
        # What was completed before the kill may be taken after it.
        last = max((kill for kill in kills_ns if before - OUTAGE_NS <= kill < after), default=None)
        if last is not None:
            back.append(after - last)
    return sorted(back)


def under_load(
    start: Callable[..., Reefd], disturb: Callable[[Reefd, random.Random], None], kills: list[int] | None = None
) -> int:
    """Four clients work while `disturb` does what it does; then every request is accounted for. How many replayed."""
    daemon = start(MANIFESTS)
    loads = [Load(daemon, task, seed) for seed, task in enumerate(("echo", "echo", "face", "iris"))]
    try:
        disturb(daemon, random.Random(SEED))
        daemon.wait_for_log("ready:")
        daemon.wait_for(lambda: all(session["connected"] for session in daemon.status()["sessions"]))
        accounts = [load.account() for load in loads]
    finally:
        for load in loads:
            load.process.kill()
            load.process.wait()
    back = service_back(accounts[0]["outages_ns"], kills or [])
    for account in accounts:
        del account["outages_ns"]
    for load, account in zip(loads, accounts, strict=True):
        assert account["submitted"] == account["completed"] > 0, (load.task, account)
        assert account["wrong"] == account["twice"] == account["failed"] == 0, (load.task, account)
    print(*[f"{load.task} {account}" for load, account in zip(loads, accounts, strict=True)], sep="\n")
    if back:
        half, most = (back[min(len(back) - 1, int(share * len(back)))] / 1e6 for share in (0.5, 0.99))
        print(f"service back after {len(back)} of {len(kills)} kills: p50 {half:.0f} ms, p99 {most:.0f} ms")
    daemon.wait_for(lambda: not daemon.regions())
    assert daemon.stop() == 0 and daemon.shm() == []
    return sum(account["replayed"] for account in accounts)


def test_killed_under_load(start):
    kills: list[int] = []

    def kill(daemon: Reefd, chance: random.Random) -> None:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 0.2))
            kills.append(time.monotonic_ns())
            daemon.kill()
            # Every fourth successor is killed on its way up: while it loads, adopts, or takes the first claims.
            daemon.start(wait=chance.random() > 0.25)

    assert under_load(start, kill, kills) > 0


def test_restarted_under_load(start):
    """SIGUSR2, as `systemctl restart` sends it."""

    def restart(daemon: Reefd, chance: random.Random) -> None:
        for _ in range(8):
            time.sleep(chance.uniform(0, 0.3))
            assert daemon.stop(signal.SIGUSR2) == 0
            daemon.start()

    under_load(start, restart)


def test_killed_clients_leave_nothing(start):
    """In the handshake, while they submit, while their requests run: no region, record or descriptor stays."""
    manifests = {name: text + "max_sessions: 64\n" for name, text in MANIFESTS.items()}
    daemon = start(manifests)
    honest = Load(daemon, "echo", 1)
    try:
        daemon.wait_for(lambda: len(daemon.regions()) == 2)
        before = daemon.descriptors()
        program = Path(__file__).with_name("kill_clients.py")
        arguments = [daemon.socket, SEED, CLIENT_KILLS, "echo", "face", "iris"]
        subprocess.run([sys.executable, program, *map(str, arguments)], check=True)
        daemon.wait_for(lambda: len(daemon.regions()) == 2, 60)
        daemon.wait_for(lambda: daemon.descriptors() == before, 60)
        daemon.wait_for(lambda: len(list((daemon.runtime_dir / "sessions").iterdir())) == 1)
        assert len(daemon.status()["sessions"]) == 1
        account = honest.account()
    finally:
        honest.process.kill()
        honest.process.wait()
    assert account["submitted"] == account["completed"] > 0, account
    assert account["wrong"] == account["twice"] == account["failed"] == 0, account
    assert "internal:" not in daemon.log_file.read_text()
    assert daemon.stop() == 0 and daemon.shm() == []
