# SPDX-License-Identifier: Apache-2.0
"""What else the machine does while something is measured on it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

_STAT = Path("/proc/stat")
_TICKS = os.sysconf("SC_CLK_TCK")


class OtherLoad:
    """`with OtherLoad(pid, ...) as load:` - afterwards `load.share` is the part of all processors' time, 0 to 1, that
    was used by anything but this process and those named (a hypervisor that took a processor away included)."""

    def __init__(self, *processes: int) -> None:
        self._processes = (os.getpid(), *processes)
        self.share = 0.0

    def __enter__(self) -> OtherLoad:
        self._begin = time.monotonic(), _busy(), self._own()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        passed = time.monotonic() - self._begin[0]
        others = (_busy() - self._begin[1]) - (self._own() - self._begin[2])
        self.share = min(1.0, max(0.0, others / max(passed, 1e-3) / (os.cpu_count() or 1)))

    def _own(self) -> float:
        return sum(map(_used, self._processes))


def _busy() -> float:
    """Seconds that all processors have been in use since the machine started; 0 where that is not told."""
    try:
        fields = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return 0.0
    idle = fields[3] + (fields[4] if len(fields) > 4 else 0)
    return (sum(fields[:8]) - idle) / _TICKS


def _used(process: int) -> float:
    """Seconds of processor time that a process has used; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
