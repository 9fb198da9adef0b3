# SPDX-License-Identifier: Apache-2.0
"""A private daemon for a benchmark: an instance, a socket and manifests of its own, gone when the benchmark is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from reefd.bench import child
from reefd.regions import SHM

Spinning = Literal["auto", "always", "never"]


class BenchError(Exception):
    """A benchmark cannot be run; the text says what to do."""


class PrivateDaemon:
    """Runs while the `with` block does. `environment` leads clients to its socket."""

    def __init__(
        self,
        manifests: Mapping[str, str],
        *,
        spinning: Spinning = "auto",
        cpus: Collection[int] = (),
        resource_dirs: Sequence[Path] = (),
        settings: Mapping[str, str] | None = None,
        suffix: str = "",
        log_level: str = "warning",
        device: str = "cpu",
    ) -> None:
        """manifests: file name -> YAML. cpus: where the daemon may run; empty: anywhere. settings: more keys of
        reefd.yaml. suffix: of the instance, tells the daemons of one benchmark apart."""
        self._folder = tempfile.TemporaryDirectory(prefix="reefd-bench-")
        folder = Path(self._folder.name)
        (folder / "tasks.d").mkdir()
        for name, text in manifests.items():
            (folder / "tasks.d" / name).write_text(text)
        self.socket = folder / "reef.sock"
        self.environment = os.environ | {"REEF_SOCKET": str(self.socket)}
        keys = {"spinning": spinning, **(settings or {})}
        (folder / "reefd.yaml").write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
        self._cpus = cpus
        self._instance = f"bench-{os.getpid()}{suffix}"
        self._command = [sys.executable, "-m", "reefd", "--config", str(folder / "reefd.yaml")]
        self._command += [
            "--instance",
            self._instance,
            "--runtime-dir",
            str(folder),
            "--device",
            device,
        ]
        self._command += ["--manifest-dir", str(folder / "tasks.d"), "--strict", "--log-level", log_level]
        for directory in resource_dirs:
            self._command += ["--resource-dir", str(directory)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the daemon, inside the `with` block."""
        if self._process is None:
            raise BenchError("the private daemon does not run")
        return self._process.pid

    def _start(self) -> subprocess.Popen[bytes]:
        # A child inherits its parent's processors; the parent takes its own back at once.
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cpus or own)
        # As it is installed: compiled once, not in every start.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        try:
            return child.start(self._command, environment=environment, parting=signal.SIGTERM)
        finally:
            os.sched_setaffinity(0, own)

    def replace(self) -> None:
        """Kills it and starts the next one, without waiting for that."""
        if self._process is None:
            raise BenchError("the private daemon does not run")
        self._process.kill()
        self._process.wait()
        self._process = self._start()

    def __enter__(self) -> PrivateDaemon:
        self._process = self._start()
        try:
            self._wait_for_socket(self._process)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_for_socket(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 60
        while not self.socket.exists():
            if process.poll() is not None:
                raise BenchError(f"the private daemon ended with code {process.returncode}; see its words above")
            if time.monotonic() > end:
                raise BenchError("the private daemon did not open its socket within 60 s")
            time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        for left in SHM.glob(f"reef.{self._instance}.*"):  # a daemon that was killed leaves them to its successor
            left.unlink(missing_ok=True)
        self._folder.cleanup()
