# SPDX-License-Identifier: Apache-2.0
"""A daemon under everything at once, for a long time; ends with 1 on a lost request or a leak.

    python -m tests.daemon.soak SECONDS FOLDER

Three honest clients stay all the while, one real-time and two best-effort; others come, work and go; some are killed.
Hostile clients of every kind attack; manifests reload, good and bad. In the first and the last quarter, the storm,
daemons are killed and restarted too; in between one daemon lives through all the rest, or a leak would die with it.
Once a minute all but the three are gone for a moment: then descriptors, threads, regions and records are exactly what
they were the first time, and memory is compared. Everything goes to FOLDER/soak.csv and rest.csv, at the end to
soak.png (soak_figures.py judges and plots). REEF_PATIENCE (seconds) is for machines that stop everything for a while.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reefd.bench.hostile import KINDS
from reefd.cli_status import NoDaemon, ask
from tests import ROOT

from . import soak_figures
from .reefd_process import PATIENCE, SHM, Reefd

HERE = Path(__file__).resolve().parent
PAUSE_SECONDS = 1.5
REST_SECONDS = 60.0
TASK = "version: 1\ntask: {name}\nclass: {task_class}\nmodel: {model}\nslots: {slots}\nmax_sessions: 64\n"
MANIFESTS = {
    f"{name}.yaml": TASK.format(name=name, task_class=task_class, model=model, slots=slots)
    for name, task_class, model, slots in (
        ("echo", "rt", "echo:64", 4),
        ("iris", "rt", "iris", 2),
        ("face", "be", "face_detector", 2),
        ("prey", "be", "face_detector", 4),
        ("quarry", "rt", "echo:64", 4),
    )
}
STAYING = (("iris", ("--rate", "50")), ("face", ()), ("echo", ("--rate", "20")))
# What may happen between two samples, and how often beside the others.
ANYTIME = {"visits": 4, "client kills": 4, "reloads": 3, "refused reloads": 1, "freezes": 1}
STORM = ANYTIME | {"daemon kills": 3, "restarts": 2}
GOOD = ("wrong", "twice", "failed")
EVENTS = ("quarantine", "flooding", "refused")  # what the hostile clients must have caused


class Soak:
    """The daemon, those who use it, and those who abuse it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.faults: list[str] = []
        self.did: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.visited: Counter[str] = Counter()
        self.attackers: dict[str, subprocess.Popen] = {}
        self.loads: dict[str, subprocess.Popen] = {}
        (folder / "reefd.yaml").write_text(f"reclaim_timeout: {PATIENCE}s\ndevice_timeout: {PATIENCE}s\n")
        options = ("--config", folder / "reefd.yaml", "--log-level", "warning")
        self.daemon = Reefd(folder, MANIFESTS, options=options, wait=False)
        self.life = 1
        self.wait_for(lambda: self.status() is not None)
        self.loads = {task: self.client(task, "--times", str(folder / task), *how) for task, how in STAYING}
        assert all(load.stdout.readline() == "ready\n" for load in self.loads.values())
        self.attack()

    # ---------------------------------------------------------------- those who take part

    def client(self, task: str, *options: str) -> subprocess.Popen:
        program = [sys.executable, str(HERE / "load_client.py"), str(self.daemon.socket), task]
        numbers = [str(self.chance.randrange(1 << 30)), str(PATIENCE)]
        return subprocess.Popen(
            [*program, *numbers, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def account(self, client: subprocess.Popen, who: str) -> dict[str, int]:
        """Ends a client when all that it submitted is completed; whatever is not as it must be is a fault."""
        assert client.stdin is not None and client.stdout is not None
        client.stdin.close()
        line = client.stdout.readline()  # "ready" and the account may have come in one piece: communicate() loses it
        code = client.wait()
        found = json.loads(line) if line and code == 0 else {}
        found.pop("outages_ns", None)
        if found.get("submitted") is None or found["submitted"] != found["completed"] or any(map(found.get, GOOD)):
            self.faults.append(f"requests of {who}: {found or f'its client ended with {code}'}")
        return found

    def attack(self) -> None:
        """Every kind, on a best-effort task, and every other one on a real-time task besides."""
        hostile = [sys.executable, "-m", "reefd.bench.hostile", str(self.daemon.socket)]
        targets = [("prey", kind) for kind in KINDS] + [("quarry", kind) for kind in list(KINDS)[::2]]
        self.attackers = {
            f"{kind} on {task}": subprocess.Popen([*hostile, task, kind], stderr=subprocess.DEVNULL, cwd=ROOT)
            for task, kind in targets
        }

    def withdraw(self) -> None:
        for name, attacker in self.attackers.items():
            if attacker.poll() is not None:
                self.faults.append(f"the hostile client {name} ended by itself: {attacker.returncode}")
            attacker.kill()
            attacker.wait()
        self.attackers = {}

    # ---------------------------------------------------------------- what happens

    def disturb(self, storm: bool) -> None:
        kinds = STORM if storm else ANYTIME
        what = self.chance.choices(list(kinds), list(kinds.values()))[0]
        if what == "daemon kills":
            self.note_events()
            self.daemon.kill()
            self.daemon.start(wait=False)
            self.life += 1
        elif what == "restarts":
            self.note_events()
            assert self.daemon.stop(signal.SIGUSR2) == 0
            self.daemon.start(wait=False)
            self.life += 1
        elif what == "client kills":
            arguments = [self.daemon.socket, self.chance.randrange(10**6), 10, "echo", "face", "iris"]
            subprocess.run([sys.executable, HERE / "kill_clients.py", *map(str, arguments)], check=True)
        elif what == "visits":
            self.visit()
        elif what == "freezes":
            self.freeze()
        else:
            self.reload(bad=what == "refused reloads")
        self.did[what] += 10 if what == "client kills" else 1
        self.wait_for(lambda: self.status() is not None)

    def visit(self) -> None:
        """Clients that come, work and go."""
        requests = {task: self.chance.randrange(20, 400) for task in ("echo", "iris", "face")}
        visitors = {task: self.client(task, "--requests", str(count)) for task, count in requests.items()}
        for task, visitor in visitors.items():
            assert visitor.stdout.readline() == "ready\n"
            self.visited.update(self.account(visitor, f"a visitor of {task}"))

    def freeze(self) -> None:
        """A client that stops for a second, wherever it is, and goes on."""
        victim = self.chance.choice(list(self.loads.values()))
        victim.send_signal(signal.SIGSTOP)
        time.sleep(1)
        victim.send_signal(signal.SIGCONT)

    def reload(self, *, bad: bool) -> None:
        path = self.daemon.manifest_dir / "extra.yaml"
        text = TASK.format(name="extra", task_class="rt", model="iris", slots=self.chance.randrange(1, 9))
        path.write_text(text.replace("class: rt", "class: rx") if bad else text)
        answer = json.loads(ask(self.daemon.runtime_dir / "control.sock", "reload", seconds=PATIENCE))
        if ("error" in answer) is not bad:
            self.faults.append(f"reload of a {'bad' if bad else 'good'} manifest: {answer}")
        path.unlink()

    # ---------------------------------------------------------------- what is seen

    def status(self) -> dict | None:
        try:
            return self.daemon.status()
        except NoDaemon:
            return None

    def wait_for(self, condition) -> None:
        self.daemon.wait_for(condition)

    def note_events(self) -> None:
        """Counters die with their daemon."""
        if (status := self.status()) is not None:
            self.events.update({event: status["events"].get(event, 0) for event in EVENTS})

    def times(self, task: str, since_ns: int) -> dict[str, float]:
        """The honest client's own figures since then: the median second's median and 99th percentile."""
        lines = [json.loads(line) for line in (self.folder / task).read_text().splitlines()[-200:]]
        recent = [line for line in lines if line["at_ns"] > since_ns]
        return soak_figures.summary(recent)

    def sample(self, since_ns: int) -> dict[str, object] | None:
        status = self.status()
        if status is None:
            return None
        shm_bytes = sum((SHM / name).stat().st_size for name in self.daemon.shm() if (SHM / name).exists())
        row: dict[str, object] = {
            "life": self.life,
            "rss_mib": status["rss_bytes"] / 2**20,
            "descriptors": len(os.listdir(f"/proc/{self.daemon.process.pid}/fd")),  # noqa: PTH208 a number, now
            "regions": len(self.daemon.regions()),
            "shm_mib": shm_bytes / 2**20,
            "sessions": len(status["sessions"]),
        }
        for name, task in (("rt", "iris"), ("be", "face")):
            row |= {f"{name}_{key}": value for key, value in self.times(task, since_ns).items()}
        return row

    def rest(self) -> dict[str, object]:
        """All but those who stay are gone, and what they had: the figures of a daemon with nothing else to hold."""
        self.withdraw()
        self.reload(bad=False)
        ask(self.daemon.runtime_dir / "control.sock", "reload", seconds=PATIENCE)  # without the extra task

        def quiet() -> bool:
            status = self.status()
            return (
                status is not None
                and len(status["sessions"]) == len(STAYING)
                and len(status["tasks"]) == len(MANIFESTS)
            )

        try:
            self.wait_for(quiet)
            self.wait_for(lambda: len(self.daemon.regions()) == 2 * len(STAYING))
            time.sleep(0.5)  # threads that close sockets
        except AssertionError:
            self.faults.append(f"sessions stay: {self.status()['sessions']}, regions: {self.daemon.regions()}")
        status = self.status()
        assert status is not None and self.daemon.process is not None
        pid = self.daemon.process.pid
        row: dict[str, object] = {
            "life": self.life,
            "rss_kib": status["rss_bytes"] >> 10,
            "descriptors": self.daemon.descriptors(),
            "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
            "mappings": len(Path(f"/proc/{pid}/maps").read_text().splitlines()),
            "regions": len(self.daemon.regions()),
            "records": len(list((self.daemon.runtime_dir / "sessions").iterdir())),
        }
        for task, load in self.loads.items():
            row[f"{task}_rss_kib"] = int(Path(f"/proc/{load.pid}/statm").read_text().split()[1]) * 4
            row[f"{task}_descriptors"] = len(list(Path(f"/proc/{load.pid}/fd").iterdir()))
        self.attack()
        return row

    # ---------------------------------------------------------------- the end

    def finish(self) -> None:
        """Ends everybody; what was lost, wrong, doubled or left behind is a fault."""
        self.withdraw()
        self.note_events()
        for task, load in self.loads.items():
            print(task, self.account(load, f"the client that stayed on {task}"))
        try:
            self.wait_for(lambda: not self.daemon.regions())
        except AssertionError:
            self.faults.append(f"regions left behind: {self.daemon.regions()}")
        if "internal:" in self.daemon.log_file.read_text():
            self.faults.append("the daemon's log has internal errors")
        code = self.daemon.stop()
        if code or self.daemon.shm():
            self.faults.append(f"the last daemon ended with {code}, and left {self.daemon.shm()}")
        self.faults += [
            f"no {event} event: did the hostile clients do anything?" for event in EVENTS if not self.events[event]
        ]

    def close(self) -> None:
        for process in (*self.attackers.values(), *self.loads.values()):
            process.kill()
            process.wait()
        self.daemon.close()


@contextmanager
def table(path: Path) -> Iterator:
    """append(row): written at once, so that an interrupted run still has its figures."""
    rows: list[dict[str, object]] = []
    with path.open("w") as file:

        def append(row: dict[str, object]) -> None:
            rounded = {key: round(value, 1) if isinstance(value, float) else value for key, value in row.items()}
            writer = csv.DictWriter(file, list(rounded))
            if not rows:
                writer.writeheader()
            writer.writerow(rounded)
            file.flush()
            rows.append(rounded)

        append.rows = rows  # type: ignore[attr-defined]
        yield append


def run(soak: Soak, seconds: float, samples, rests) -> None:
    start = time.monotonic()
    since_ns, rest_at = time.monotonic_ns(), 0.0
    while (at := time.monotonic() - start) < seconds:
        storm = not 0.25 <= at / seconds < 0.75
        time.sleep(PAUSE_SECONDS)
        row = soak.sample(since_ns)
        since_ns = time.monotonic_ns()
        if row is not None:
            samples({"seconds": at, "storm": int(storm), **row})
        soak.disturb(storm)
        if at >= rest_at:
            rests({"seconds": at, "storm": int(storm), **soak.rest()})
            rest_at = at + min(REST_SECONDS, seconds / 20)


def main() -> int:
    seconds, folder = float(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="reefd-soak-") as place,
        table(folder / "soak.csv") as samples,
        table(folder / "rest.csv") as rests,
    ):
        soak = Soak(Path(place), seed=1)
        try:
            run(soak, seconds, samples, rests)
            soak.finish()
        finally:
            soak.close()
            (folder / "reefd.log").write_text(soak.daemon.log_file.read_text())
    faults = soak.faults + soak_figures.leaks(rests.rows)
    soak_figures.plot(samples.rows, rests.rows, folder / "soak.png")
    print(f"{seconds:.0f} s, {soak.life} daemons: {', '.join(f'{count} {what}' for what, count in soak.did.items())}")
    print(f"visitors: {dict(soak.visited)}")
    print(f"hostile clients caused: {dict(soak.events)}")
    print(*soak_figures.lines(samples.rows, rests.rows), sep="\n")
    print(*faults or ["nothing lost, nothing leaked"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
