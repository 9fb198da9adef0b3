# SPDX-License-Identifier: Apache-2.0
"""Daemons and clients are killed at random instants under load: nothing lost, nothing twice, every answer right.

REEF_KILLS is the number of kills; `make test-kill` makes it 10,000. They are done in rounds, each with clients of its
own and accounted for to the last request; REEF_PROGRESS names a file that gets a line for each round that was whole, so
that a run that was interrupted still counts for what it did. REEF_PATIENCE (seconds) is for machines that stop
everything for a while.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .reefd_process import ECHO, PATIENCE, Reefd

KILLS = int(os.environ.get("REEF_KILLS", "50"))
CLIENT_KILLS = int(os.environ.get("REEF_CLIENT_KILLS", "300"))
OUTAGE_NS = 20_000_000  # load_client.py's: a shorter pause is none
SEED = int(os.environ.get("REEF_SEED", "1"))
PROGRESS = os.environ.get("REEF_PROGRESS")
ROUND, CLIENT_ROUND = 100, 1000
PAUSE = 0.0005  # of a client before it uses a slot again: what it costs is not what is tested
COLD = 0.1  # of all starts: from nothing, as systemd does it
MANIFESTS = {
    "echo.yaml": ECHO,
    "face.yaml": "version: 1\ntask: face\nclass: be\nmodel: face_detector\nslots: 2\n",
    "iris.yaml": "version: 1\ntask: iris\nclass: rt\nmodel: iris\nslots: 2\n",
}


class Load:
    """A client process on one task."""

    def __init__(self, daemon: Reefd, task: str, seed: int) -> None:
        program = Path(__file__).with_name("load_client.py")
        command = [
            sys.executable,
            str(program),
            str(daemon.socket),
            task,
            str(seed),
            str(PATIENCE),
            "--pause",
            str(PAUSE),
        ]
        self.task = task
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def account(self) -> dict[str, int]:
        """Ends it when all that it submitted is completed."""
        out, _ = self.process.communicate(timeout=240 + PATIENCE)
        assert self.process.returncode == 0, (self.task, self.process.returncode)
        return json.loads(out)


def configured(directory: Path) -> tuple[object, ...]:
    """Options of a daemon that has as much patience as the test, with clients and with a device that gets no time."""
    (directory / "reefd.yaml").write_text(f"reclaim_timeout: {PATIENCE}s\ndevice_timeout: {PATIENCE}s\n")
    return "--config", directory / "reefd.yaml"


def note(what: str, kills: int, **figures: object) -> None:
    """A round was whole."""
    if PROGRESS:
        with Path(PROGRESS).open("a") as file:
            file.write(json.dumps({"what": what, "kills": kills, "at": time.strftime("%T"), **figures}) + "\n")


def rounds(total: int, most: int) -> list[int]:
    return [min(most, total - done) for done in range(0, total, most)]


@dataclass(frozen=True, order=True)
class Kill:
    at_ns: int
    cold: bool  # the start of the successor


def service_back(outages_ns: list[tuple[int, int]], kills: list[Kill]) -> list[int]:
    """For each kill with a cold successor that was not killed before it answered: the time to the first completion."""
    back = []
    for before, after in outages_ns:
        # What was completed before the kill may be taken after it.
        last = max((kill for kill in kills if before - OUTAGE_NS <= kill.at_ns < after), default=None)
        if last is not None and last.cold:
            back.append(after - last.at_ns)
    return back


def under_load(
    daemon: Reefd, chance: random.Random, disturb: Callable[[Reefd, random.Random], list[Kill]]
) -> tuple[dict[str, int], list[int]]:
    """Four clients work while `disturb` does what it does and tells when it killed; every request is accounted for.

    Returns what all of them did together, and the times until service was back."""
    loads = [Load(daemon, task, chance.randrange(1 << 30)) for task in ("echo", "echo", "face", "iris")]
    try:
        kills = disturb(daemon, chance)
        daemon.wait_for_log("ready:")
        daemon.wait_for(lambda: all(session["connected"] for session in daemon.status()["sessions"]))
        accounts = [load.account() for load in loads]
    finally:
        for load in loads:
            load.process.kill()
            load.process.wait()
    back = service_back(accounts[0]["outages_ns"], kills)
    for load, account in zip(loads, accounts, strict=True):
        del account["outages_ns"]
        assert account["submitted"] == account["completed"] > 0, (load.task, account)
        assert account["wrong"] == account["twice"] == account["failed"] == 0, (load.task, account)
    daemon.wait_for(lambda: not daemon.regions())
    return {key: sum(account[key] for account in accounts) for key in accounts[0]}, back


def kill(daemon: Reefd, chance: random.Random, count: int) -> list[Kill]:
    kills = []
    for _ in range(count):
        time.sleep(chance.uniform(0, 0.1))
        cold = chance.random() < COLD
        kills.append(Kill(time.monotonic_ns(), cold))
        daemon.kill()
        # Every fourth successor is killed on its way up: while it loads, adopts, or takes the first claims.
        daemon.start(wait=chance.random() > 0.25, warm=not cold)
    return kills


def test_killed_under_load(start, directory):
    daemon = start(MANIFESTS, options=configured(directory))
    chance = random.Random(SEED)
    total: dict[str, int] = {}
    back: list[int] = []
    for count in rounds(KILLS, ROUND):
        did, times = under_load(daemon, chance, lambda daemon, chance, count=count: kill(daemon, chance, count))
        note("daemon", count, **did)
        total = {key: total.get(key, 0) + value for key, value in did.items()}
        back += times
    print(f"{KILLS} kills: {total}")
    if back:
        half, most = (sorted(back)[min(len(back) - 1, int(share * len(back)))] / 1e6 for share in (0.5, 0.99))
        print(f"service back after {len(back)} kills with a cold start: p50 {half:.0f} ms, p99 {most:.0f} ms")
    assert total["replayed"] > 0
    assert daemon.stop() == 0 and daemon.shm() == []


def test_restarted_under_load(start, directory):
    """SIGUSR2, as `systemctl restart` sends it."""

    def restart(daemon: Reefd, chance: random.Random) -> list[Kill]:
        for _ in range(8):
            time.sleep(chance.uniform(0, 0.3))
            assert daemon.stop(signal.SIGUSR2) == 0
            daemon.start()
        return []

    daemon = start(MANIFESTS, options=configured(directory))
    under_load(daemon, random.Random(SEED), restart)
    assert daemon.stop() == 0 and daemon.shm() == []


def test_killed_clients_leave_nothing(start, directory):
    """In the handshake, while they submit, while their requests run: no region, record or descriptor stays."""
    manifests = {name: text + "max_sessions: 64\n" for name, text in MANIFESTS.items()}
    daemon = start(manifests, options=configured(directory))
    honest = Load(daemon, "echo", 1)
    program = Path(__file__).with_name("kill_clients.py")
    try:
        daemon.wait_for(lambda: len(daemon.regions()) == 2)
        before = daemon.descriptors()
        memory = []
        for number, count in zip(itertools.count(SEED), rounds(CLIENT_KILLS, CLIENT_ROUND), strict=False):
            arguments = [daemon.socket, number, count, "echo", "face", "iris"]
            subprocess.run([sys.executable, program, *map(str, arguments)], check=True)
            daemon.wait_for(lambda: len(daemon.regions()) == 2)
            daemon.wait_for(lambda: daemon.descriptors() <= before)
            daemon.wait_for(lambda: len(list((daemon.runtime_dir / "sessions").iterdir())) == 1)
            assert len(daemon.status()["sessions"]) == 1
            memory.append(daemon.status()["rss_bytes"])
            note("client", count, rss_bytes=memory[-1], descriptors=before)
        account = honest.account()
    finally:
        honest.process.kill()
        honest.process.wait()
    print(f"{CLIENT_KILLS} clients killed; resident MiB after each {CLIENT_ROUND}: {[size >> 20 for size in memory]}")
    assert account["submitted"] == account["completed"] > 0, account
    assert account["wrong"] == account["twice"] == account["failed"] == 0, account
    assert "internal:" not in daemon.log_file.read_text()
    assert daemon.stop() == 0 and daemon.shm() == []
