# SPDX-License-Identifier: Apache-2.0
"""A daemon under everything at once, for a long time; ends with 1 on a lost request or a leak.

    python -m tests.daemon.soak SECONDS FOLDER

Clients of both classes stay, or come and go; daemons and clients are killed; manifests reload, good and bad; hostile
clients attack. Every few seconds the daemon's memory, descriptors, regions and latencies go to FOLDER/soak.csv, at the
end to soak.png. What grows from the second quarter of the run to the last is a leak.
"""

from __future__ import annotations

import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reefd.bench.hostile import KINDS
from reefd.cli_status import NoDaemon, ask
from tests import ROOT

from .reefd_process import Reefd

HERE = Path(__file__).resolve().parent
SAMPLE_SECONDS = 2.0
COLUMNS = (
    "seconds",
    "rss_mib",
    "descriptors",
    "regions",
    "sessions",
    "rt_p50_us",
    "rt_p99_us",
    "be_p50_us",
    "be_p99_us",
)
TASK = "version: 1\ntask: {name}\nclass: {task_class}\nmodel: {model}\nslots: {slots}\nmax_sessions: 64\n"
MANIFESTS = {
    f"{name}.yaml": TASK.format(name=name, task_class=task_class, model=model, slots=slots)
    for name, task_class, model, slots in (
        ("echo", "rt", "echo:64", 4),
        ("iris", "rt", "iris", 2),
        ("face", "be", "face_detector", 2),
        ("prey", "be", "face_detector", 4),
    )
}
MEMORY_SLACK = 1.15
DESCRIPTOR_SLACK = 40  # hostile sessions come and go by the dozen


class Soak:
    """The daemon, those who use it, and those who abuse it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.daemon = Reefd(folder, MANIFESTS, options=("--log-level", "warning"), wait=False)
        self.daemon.wait_for(lambda: self.daemon.socket.exists())
        program = [sys.executable, str(HERE / "load_client.py"), str(self.daemon.socket)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.loads = [subprocess.Popen([*program, task, str(i)], **pipes) for i, task in enumerate(("iris", "face"))]
        assert all(load.stdout.readline() == "ready\n" for load in self.loads)
        hostile = [sys.executable, "-m", "reefd.bench.hostile", str(self.daemon.socket), "prey"]
        self.attackers = [subprocess.Popen([*hostile, kind], stderr=subprocess.DEVNULL, cwd=ROOT) for kind in KINDS]
        self.did = dict.fromkeys(("daemon kills", "restarts", "client kills", "reloads", "refused reloads"), 0)

    def disturb(self) -> None:
        """One of the things that happen."""
        what = self.chance.choices(list(self.did), (2, 2, 4, 3, 1))[0]
        self.did[what] += 1
        if what == "daemon kills":
            self.daemon.kill()
            self.daemon.start(wait=False)
        elif what == "restarts":
            assert self.daemon.stop(12) == 0  # SIGUSR2
            self.daemon.start(wait=False)
        elif what == "client kills":
            arguments = [self.daemon.socket, self.chance.randrange(10**6), 10, "echo", "face", "iris"]
            subprocess.run([sys.executable, HERE / "kill_clients.py", *map(str, arguments)], check=True)
        else:
            self.reload(bad=what == "refused reloads")
        self.daemon.wait_for(lambda: self.status() is not None)

    def reload(self, *, bad: bool) -> None:
        path = self.daemon.manifest_dir / "extra.yaml"
        text = TASK.format(name="extra", task_class="rt", model="echo:64", slots=self.chance.randrange(1, 9))
        path.write_text(text.replace("class: rt", "class: rx") if bad else text)
        answer = json.loads(ask(self.daemon.runtime_dir / "control.sock", "reload", seconds=60))
        assert ("error" in answer) is bad, answer
        path.unlink()

    def status(self) -> dict | None:
        try:
            return self.daemon.status()
        except NoDaemon:
            return None

    def sample(self, start: float) -> dict[str, float] | None:
        status = self.status()
        if status is None:
            return None
        latency = {task["task"]: task["latency"]["end_to_end"] for task in status["tasks"]}
        row = [time.monotonic() - start, status["rss_bytes"] / 2**20, self.daemon.descriptors()]
        row += [len(self.daemon.regions()), len(status["sessions"])]
        row += [latency[task][key] for task in ("iris", "face") for key in ("p50_us", "p99_us")]
        return {name: round(value, 1) for name, value in zip(COLUMNS, row, strict=True)}

    def finish(self) -> list[str]:
        """Ends everybody; what was lost, wrong, doubled or left behind."""
        faults = []
        for attacker in self.attackers:
            attacker.kill()
            attacker.wait()
        for load in self.loads:
            account = json.loads(load.communicate(timeout=300)[0])
            account.pop("outages_ns")
            print(account)
            good = account["submitted"] == account["completed"] and not any(
                account[key] for key in ("wrong", "twice", "failed")
            )
            faults += [] if good else [f"requests: {account}"]
        try:
            self.daemon.wait_for(lambda: not self.daemon.regions(), 30)
        except AssertionError:
            faults.append(f"regions left behind: {self.daemon.regions()}")
        if "internal:" in self.daemon.log_file.read_text():
            faults.append("the daemon's log has internal errors")
        code = self.daemon.stop()
        if code or self.daemon.shm():
            faults.append(f"the last daemon ended with {code}, and left {self.daemon.shm()}")
        return faults

    def close(self) -> None:
        for process in (*self.attackers, *self.loads):
            process.kill()
            process.wait()
        self.daemon.close()


def leaks(rows: list[dict[str, float]]) -> list[str]:
    """What is higher in the last quarter than in the second one. Daemons change meanwhile: a median is compared."""
    if len(rows) < 16:
        return []
    quarter = len(rows) // 4
    found = []
    for column, factor, slack in (
        ("rss_mib", MEMORY_SLACK, 8),
        ("descriptors", 1, DESCRIPTOR_SLACK),
        ("regions", 1, 8),
    ):
        before = statistics.median(row[column] for row in rows[quarter : 2 * quarter])
        after = statistics.median(row[column] for row in rows[-quarter:])
        if after > before * factor + slack:
            found.append(f"{column} grew from {before} to {after}")
    return found


def plot(rows: list[dict[str, float]], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = (
        ("rss_mib",),
        ("descriptors", "regions", "sessions"),
        ("rt_p50_us", "rt_p99_us", "be_p50_us", "be_p99_us"),
    )
    figure, axes = pyplot.subplots(len(groups), sharex=True, figsize=(10, 9))
    for axis, columns in zip(axes, groups, strict=True):
        for column in columns:
            axis.plot([row["seconds"] for row in rows], [row[column] for row in rows], label=column)
        axis.legend(loc="upper left")
        axis.grid(alpha=0.3)
    axes[-1].set_yscale("log")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=110)


def main() -> int:
    seconds, folder = float(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="reefd-soak-") as place, (folder / "soak.csv").open("w") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        soak = Soak(Path(place), seed=1)
        try:
            start = time.monotonic()
            while time.monotonic() - start < seconds:
                time.sleep(SAMPLE_SECONDS)
                row = soak.sample(start)
                if row is not None:
                    rows.append(row)
                    table.writerow(row)
                    file.flush()
                soak.disturb()
            faults = soak.finish() + leaks(rows)
        finally:
            soak.close()
    plot(rows, folder / "soak.png")
    print(f"{seconds:.0f} s: {', '.join(f'{count} {what}' for what, count in soak.did.items())}")
    print(*faults or ["nothing lost, nothing leaked"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
