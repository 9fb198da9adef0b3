# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed at random instants under load: nothing is lost, nothing answered twice, every answer right."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reefd_process import ECHO, Reefd

KILLS = int(os.environ.get("REEF_KILLS", "50"))
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
        out, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, (self.task, self.process.returncode)
        return json.loads(out)


def under_load(start: Callable[..., Reefd], disturb: Callable[[Reefd, random.Random], None]) -> int:
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
    for load, account in zip(loads, accounts, strict=True):
        assert account["submitted"] == account["completed"] > 0, (load.task, account)
        assert account["wrong"] == account["twice"] == account["failed"] == 0, (load.task, account)
    print(*[f"{load.task} {account}" for load, account in zip(loads, accounts, strict=True)], sep="\n")
    daemon.wait_for(lambda: not daemon.regions())
    assert daemon.stop() == 0 and daemon.shm() == []
    return sum(account["replayed"] for account in accounts)


def test_killed_under_load(start):
    def kill(daemon: Reefd, chance: random.Random) -> None:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 0.4))
            daemon.kill()
            # Every fourth successor is killed on its way up: while it loads, adopts, or takes the first claims.
            daemon.start(wait=chance.random() > 0.25)

    assert under_load(start, kill) > 0


def test_restarted_under_load(start):
    """SIGUSR2, as `systemctl restart` sends it."""

    def restart(daemon: Reefd, chance: random.Random) -> None:
        for _ in range(8):
            time.sleep(chance.uniform(0, 0.3))
            assert daemon.stop(signal.SIGUSR2) == 0
            daemon.start()

    under_load(start, restart)
