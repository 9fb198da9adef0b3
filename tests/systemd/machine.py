# SPDX-License-Identifier: Apache-2.0
"""A machine with a real systemd, in namespaces of this one: commands run in it, its files are seen from here."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests import ROOT

BOOT = Path(__file__).with_name("boot.sh")


def package() -> Path:
    """What `make deb` made."""
    found = sorted((ROOT / "build/deb").glob("reefd_*.deb"))
    assert found, "there is no package: make deb"
    return found[-1]


class Machine:
    """Boots on construction. `folder`: an empty one for its mounts."""

    def __init__(self, folder: Path, log: Path) -> None:
        with log.open("w") as file:
            self._boot = subprocess.Popen(["bash", BOOT, folder], stdout=file, stderr=file, start_new_session=True)
        self._log = log
        self._pid = 0
        try:
            self.wait_for(self._find_init, 30)
            self.wait_for(lambda: self.run("systemctl", "is-system-running").stdout.strip() in _UP, 60)
        except BaseException:
            self.close()
            raise

    def _find_init(self) -> bool:
        """systemd is the child of unshare(1), which is the child of the script."""
        assert self._boot.poll() is None, self._log.read_text()
        for child in _children(self._boot.pid):
            for grandchild in _children(child):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{grandchild}/comm").read_text() == "systemd\n":
                        self._pid = grandchild
                        return True
        return False

    def close(self) -> None:
        """Ends every process of it. Idempotent."""
        if self._boot.poll() is None:
            for child in _children(self._boot.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._boot.wait(30)

    # ---------------------------------------------------------------- inside

    def command(self, *arguments: object) -> list[str]:
        return ["nsenter", "-t", str(self._pid), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", *map(str, arguments)]

    def run(self, *arguments: object, check: bool = False, **options: object) -> subprocess.CompletedProcess[str]:
        """A command as the machine's root."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "SYSTEMD_PAGER": ""}
        result = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=120, env=env, **options
        )  # fmt: skip
        if check and result.returncode != 0:
            raise AssertionError(f"{arguments}: {result.returncode}\n{result.stdout}{result.stderr}\n{self.journal()}")
        return result

    def start(self, *arguments: object, **options: object) -> subprocess.Popen[str]:
        """A command that goes on; its pid here is nsenter's."""
        return subprocess.Popen(self.command(*arguments), text=True, **options)

    def outer(self, pid: int) -> int:
        """A process of the machine by its number out here."""
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = re.search(r"^NSpid:\t(\d+)\t(\d+)$", status.read_text(), re.M)
                outer, inner = map(int, numbers.groups()) if numbers else (0, 0)
                if inner == pid and _namespace(outer) == _namespace(self._pid):
                    return outer
        raise ProcessLookupError(f"the machine has no process {pid}")

    def path(self, inside: str) -> Path:
        """A file of the machine, as seen from here."""
        return Path(f"/proc/{self._pid}/root{inside}")

    # ---------------------------------------------------------------- systemd

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", *arguments, check=check)

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "-P", name, unit, check=True).stdout.strip()

    def journal(self, *arguments: str) -> str:
        options = ("--no-pager", "-u", "reefd", "-n", "200") if not arguments else ("--no-pager", *arguments)
        return self.run("journalctl", *options).stdout

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s in vain\n{self.journal() if self._pid else ''}")
            time.sleep(0.01)


_UP = ("running", "degraded")


def _namespace(pid: int) -> int:
    """Which pid namespace a process is in."""
    return Path(f"/proc/{pid}/ns/pid").stat().st_ino


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in re.findall(r"\d+", Path(f"/proc/{pid}/task/{pid}/children").read_text())]
    return []
