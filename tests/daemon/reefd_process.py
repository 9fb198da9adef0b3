# SPDX-License-Identifier: Apache-2.0
"""The real daemon as a subprocess, with a runtime directory, manifests and an instance name of its own."""

from __future__ import annotations

import faulthandler
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reefd import __main__ as program
from reefd.cli_status import NoDaemon, ask
from tests import ROOT

RESOURCES = ROOT / "build/resource"
AS_USER = Path(__file__).with_name("as_user.py")
NOBODY = 65534
SHM = Path("/dev/shm")
ECHO = "version: 1\ntask: echo\nclass: rt\nmodel: echo:64\nslots: 4\n"
# Seconds that anything may take: longer on machines that stop everything for a while.
PATIENCE = int(os.environ.get("REEF_PATIENCE", "60"))
_numbers = itertools.count()


class Forked:
    """A daemon as a child without a program of its own; what subprocess.Popen has, as far as it is used here."""

    def __init__(self, arguments: list[str], log: int) -> None:
        importlib.import_module("reefd.daemon")  # here, not in every child
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                faulthandler.disable()
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.closerange(3, 4096)
                sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
                code = program.main(arguments)
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        return self._look(os.WNOHANG)

    def wait(self, seconds: float | None = None) -> int:
        end = None if seconds is None else time.monotonic() + seconds
        while (code := self._look(0 if end is None else os.WNOHANG)) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("a forked reefd", seconds)
            time.sleep(0.002)
        return code

    def _look(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Reefd:
    """Starts on construction and waits until it serves. `manifests`: file name -> text. `launcher`: words before its
    command; `memory`: its /dev/shm as seen from here."""

    def __init__(
        self,
        directory: Path,
        manifests: dict[str, str] | None = None,
        *,
        instance: str | None = None,
        user: int | None = None,
        resources: Path = RESOURCES,
        options: tuple[object, ...] = (),
        launcher: tuple[object, ...] = (),
        memory: Path = SHM,
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
        self.launcher = launcher
        self.memory = memory
        self.process: subprocess.Popen | Forked | None = None
        self.manifest_dir.mkdir(parents=True, exist_ok=True)
        for name, text in ({"echo.yaml": ECHO} if manifests is None else manifests).items():
            (self.manifest_dir / name).write_text(text)
        if user is not None:
            self.runtime_dir.mkdir(exist_ok=True)
            os.chown(self.runtime_dir, user, user)
        self.start(wait=wait)

    def start(self, *, wait: bool = True, warm: bool = False) -> None:
        """`warm`: as a fork of this process, which has everything imported: a third of the work, for thousands."""
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
        words = [*map(str, arguments)]
        reefd = ["-m", "reefd"] if self.user is None else [str(AS_USER), str(self.user), "reefd"]
        with self.log_file.open("a") as log:
            log.write("---- start\n")
            log.flush()
            if warm:
                self.process = Forked(words, log.fileno())
            else:
                command = [*map(str, self.launcher), sys.executable, *reefd, *words]
                self.process = subprocess.Popen(command, stderr=log, stdout=log, cwd=ROOT)
        if wait:
            self.wait_for_log("ready:")

    def log(self) -> str:
        """What the current run wrote."""
        return self.log_file.read_text().rpartition("---- start\n")[2]

    def wait_for_log(self, words: str, seconds: float = PATIENCE) -> str:
        """Waits until this run's log has the words; returns the log."""
        end = time.monotonic() + seconds
        while words not in (log := self.log()):
            alive = self.process is not None and self.process.poll() is None
            assert time.monotonic() < end and (alive or words in self.log()), f"no {words!r} in the log:\n{self.log()}"
            time.sleep(0.005)
        return log

    def wait_for(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
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

    def ended(self, seconds: float = PATIENCE) -> int:
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
            (self.memory / name).unlink()

    def shm(self) -> list[str]:
        return sorted(path.name for path in self.memory.iterdir() if path.name.startswith(f"reef.{self.instance}."))

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
        """A daemon that gets no processor for seconds closes the connection without an answer, and is asked again."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return json.loads(ask(self.runtime_dir / "control.sock", "status", seconds=PATIENCE))
            except NoDaemon:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.01)


def run_as(user: int, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python code as another user."""
    command = [sys.executable, str(AS_USER), str(user), "code", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
