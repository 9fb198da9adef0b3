# SPDX-License-Identifier: Apache-2.0
"""The process that plays the daemon (peer.c)."""

import subprocess
import time
from pathlib import Path


class Peer:
    """The stand-in daemon: started, killed and started again on the same directory."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.program = program
        self.directory = directory
        self.socket = directory / "s"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        self.kill()
        self.socket.unlink(missing_ok=True)
        command = [self.program, f"--dir={self.directory}", f"--socket={self.socket}", *options]
        self.process = subprocess.Popen(command)
        end = time.monotonic() + 60
        while not self.socket.exists():
            assert time.monotonic() < end and self.process.poll() is None, "the peer did not come up"
            time.sleep(0.001)

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
