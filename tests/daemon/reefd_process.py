# SPDX-License-Identifier: Apache-2.0
"""The real daemon as a subprocess, with a runtime directory, manifests and an instance name of its own."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reefd.cli_status import ask
from tests import ROOT

RESOURCES = ROOT / "build/resource"
AS_USER = Path(__file__).with_name("as_user.py")
NOBODY = 65534
SHM = Path("/dev/shm")
ECHO = "version: 1\ntask: echo\nclass: rt\nmodel: echo:64\nslots: 4\n"
_numbers = itertools.count()


class Reefd:
    """Starts on construction and waits until it serves. `manifests`: file name -> text."""

    def __init__(
        self,
        directory: Path,
        manifests: dict[str, str] | None = None,
        *,
        instance: str | None = None,
        user: int | None = None,
        resources: Path = RESOURCES,
        options: tuple[object, ...] = (),
        wait: bool = True,
    ) -> None:
        self.instance = instance or f"test-{os.getpid()}-{next(_numbers)}"
        self.user = user
        self.manifest_dir = directory / "tasks.d"
        self.runtime_dir = directory / "run"
        self.socket = self.runtime_dir / "reef.sock"
        self.log_file = directory / "log"
        self.resources = resources
        self.options = options
        self.process: subprocess.Popen | None = None
        self.manifest_dir.mkdir(parents=True, exist_ok=True)
        for name, text in ({"echo.yaml": ECHO} if manifests is None else manifests).items():
            (self.manifest_dir / name).write_text(text)
        if user is not None:
            self.runtime_dir.mkdir(exist_ok=True)
            os.chown(self.runtime_dir, user, user)
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        arguments = [
            "--instance",
            self.instance,
            "--runtime-dir",
            self.runtime_dir,
            "--manifest-dir",
            self.manifest_dir,
            "--resource-dir",
            self.resources,
            "--device",
            "cpu",
            *self.options,
        ]
        program = ["-m", "reefd"] if self.user is None else [AS_USER, self.user, "reefd"]
        # As it is installed: compiled once, not in every start.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, *map(str, program), *map(str, arguments)]
        with self.log_file.open("a") as log:
            log.write("---- start\n")
            log.flush()
            self.process = subprocess.Popen(command, stderr=log, stdout=log, cwd=ROOT, env=environment)
        if wait:
            self.wait_for_log("ready:")

    def log(self) -> str:
        """What the current run wrote."""
        return self.log_file.read_text().rpartition("---- start\n")[2]

    def wait_for_log(self, words: str, seconds: float = 60) -> str:
        """Waits until this run's log has the words; returns the log."""
        end = time.monotonic() + seconds
        while words not in (log := self.log()):
            alive = self.process is not None and self.process.poll() is None
            assert time.monotonic() < end and (alive or words in self.log()), f"no {words!r} in the log:\n{self.log()}"
            time.sleep(0.005)
        return log

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s in vain; the log:\n{self.log()}"
            time.sleep(0.005)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.ended()

    def ended(self, seconds: float = 30) -> int:
        """Waits for its end; the exit code."""
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        return code

    def close(self) -> None:
        """Whatever happened before: nothing of it stays."""
        if self.process is not None:
            self.kill()
        for name in self.shm():
            (SHM / name).unlink()

    def shm(self) -> list[str]:
        return sorted(path.name for path in SHM.iterdir() if path.name.startswith(f"reef.{self.instance}."))

    def regions(self) -> list[str]:
        return [name for name in self.shm() if not name.endswith(".lock")]

    def descriptors(self) -> int:
        """How many it has at rest: a status is answered when all that came before it is dealt with."""
        assert self.process is not None
        folder = Path(f"/proc/{self.process.pid}/fd")
        before, now = -1, len(list(folder.iterdir()))
        while before != now:
            self.status()
            before, now = now, len(list(folder.iterdir()))
        return now

    def status(self) -> dict:
        return json.loads(ask(self.runtime_dir / "control.sock", "status"))


def run_as(user: int, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python code as another user."""
    command = [sys.executable, str(AS_USER), str(user), "code", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
