# SPDX-License-Identifier: Apache-2.0
"""Commands that start a daemon of their own leave nothing behind when they are interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT, wait_until

DETECTOR = "a compiled network"
COMMANDS = {
    "run": ["run", DETECTOR, "--duration", "60"],
    "bench ring": ["bench", "ring"],
    "bench death": ["bench", "death", "--rounds", "1000", "--resource-dir", str(ROOT / "build/resource")],
}


def children_in(place: Path) -> list[int]:
    """The processes that were started with a path in `place`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if f"{place}/".encode() in words:
                found.append(int(entry.name))
    return found


@pytest.fixture
def begun(request: pytest.FixtureRequest, detector: Path, tmp_path: Path) -> subprocess.Popen[str]:
    """A command whose daemon serves. Its temporary files are in tmp_path."""
    words = [str(detector) if word == DETECTOR else word for word in COMMANDS[request.param]]
    command = [str(Path(sys.executable).with_name("reefctl")), *words]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    # What a shell puts into the background ignores SIGINT, and hands that on; a command at a terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    signal.signal(signal.SIGINT, before)
    wait_until(lambda: list(tmp_path.glob("*/reef.sock")), what="the daemon did not come up")
    time.sleep(0.2)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("begun", COMMANDS, indirect=True)
def test_an_interrupted_command_takes_its_daemon_and_its_files_along(
    begun: subprocess.Popen[str], number: signal.Signals, tmp_path: Path
) -> None:
    os.killpg(begun.pid, number)  # as a terminal does
    _, errors = begun.communicate(timeout=120)
    assert begun.returncode == 128 + number
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert children_in(tmp_path) == []
    assert list(Path("/dev/shm").glob(f"reef.bench-{begun.pid}*")) == []


# Not `bench death`: it kills daemons itself, so there may be none, or one that nobody would succeed.
@pytest.mark.parametrize("begun", ["run", "bench ring"], indirect=True)
def test_no_daemon_survives_a_killed_command(begun: subprocess.Popen[str], tmp_path: Path) -> None:
    assert children_in(tmp_path)
    begun.kill()
    wait_until(lambda: not children_in(tmp_path), what="its daemon lives on")
    assert list(Path("/dev/shm").glob(f"reef.bench-{begun.pid}*")) == []
