# SPDX-License-Identifier: Apache-2.0
"""How soon the installed service is back under a real systemd: kill -9 of its main process to the first completion.

    python -m tests.systemd.service_back [ROUNDS]      root, after `make deb resources`

The clients are those of `reefctl bench death`, busy when the process is killed; systemd notices and
starts the next one. Where the time went is said by systemd's own record of the unit (CLOCK_MONOTONIC, as the client's).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from reefd.bench import death
from tests import ROOT

from .machine import Machine, package

PYTHON = "/usr/lib/reefd/bin/python"
SOCKET = "/run/reefd/reef.sock"


def prepare(machine: Machine) -> None:
    """The package, and the two tasks of the benchmark."""
    machine.run("dpkg", "-i", package(), check=True)
    shutil.copytree(ROOT / "build/resource", machine.path("/usr/share/reefd/resource"), dirs_exist_ok=True)
    for name, text in death.MANIFESTS.items():
        machine.path(f"/etc/reefd/tasks.d/{name}").write_text(text)
    machine.systemctl("restart", "reefd")


# From the kill to each of these, in this order; the last one is the client's.
STAMPS = {
    "noticed": "ActiveExitTimestampMonotonic",
    "started again": "InactiveExitTimestampMonotonic",
    "forked": "ExecMainStartTimestampMonotonic",
    "ready": "ActiveEnterTimestampMonotonic",
}


def measure(machine: Machine, rounds: int) -> list[list[int]]:
    """For each kill: nanoseconds until each stamp, and until the first completion."""
    load = ["/usr/lib/reefd/load_client.py", SOCKET, death.BE_TASK, 1]
    shutil.copy(ROOT / "tests/daemon/load_client.py", machine.path(str(load[0])))
    busy = machine.start(PYTHON, *load, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    serve = machine.command(PYTHON, "-m", "reefd.bench.death", "serve", SOCKET)
    client = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None and client.stdout.readline() == b"ready\n"
    back = []
    try:
        for _ in range(rounds):
            time.sleep(death.SERVE_S)
            pid = machine.outer(int(machine.show("reefd", "MainPID")))
            start, done = time.monotonic_ns(), 0
            os.kill(pid, signal.SIGKILL)
            while done < start + death.OUTAGE_NS:
                (done,) = death.TIME.unpack(client.stdout.read(death.TIME.size))
            machine.wait_for(lambda start=start: int(machine.show("reefd", STAMPS["ready"])) * 1000 > start)
            stamps = [int(machine.show("reefd", name)) * 1000 for name in STAMPS.values()]
            back.append([at - start for at in (*stamps, done)])
    finally:
        for process in (client, busy):
            process.kill()
            process.wait()
    return back


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory(prefix="reefd-machine-") as folder:
        machine = Machine(Path(folder), Path(folder + ".log"))
        try:
            prepare(machine)
            back = np.array(measure(machine, rounds)) / 1e6
        finally:
            machine.close()
            Path(folder + ".log").unlink()
    for stage, times in zip([*STAMPS, "first completion"], back.T, strict=True):
        half, most = np.percentile(times, [50, 99])
        print(f"kill -9 to {stage:16}: p50 {half:.0f} ms, p99 {most:.0f}, most {times.max():.0f}, {rounds} kills")


if __name__ == "__main__":
    main()
