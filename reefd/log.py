# SPDX-License-Identifier: Apache-2.0
"""The log: one line for each event, to stderr; under systemd an entry with fields, to the journal.

What clients can cause is limited for each user, so that no client fills the disk.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TextIO

from reefd import journal
from reefd.journal import Journal
from reefd.yamlfile import shorten

# syslog's priorities.
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_BURST = 20.0  # lines that one user may cause at once
_PER_SECOND = 1.0
_MAX_SOURCES = 256


class Log:
    """Writes `event: words (task=... session=... uid=... pid=... code=...)`."""

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._threshold = _PRIORITY[level]
        self._journal = Journal() if stream is None and journal.is_stderr() else None
        self._buckets: dict[int, _Bucket] = {}

    def debug(self, event: str, words: str, **fields: object) -> None:
        self._write("debug", event, words, fields)

    def info(self, event: str, words: str, **fields: object) -> None:
        self._write("info", event, words, fields)

    def warning(self, event: str, words: str, **fields: object) -> None:
        self._write("warning", event, words, fields)

    def error(self, event: str, words: str, **fields: object) -> None:
        self._write("error", event, words, fields)

    def client(self, level: str, event: str, words: str, *, uid: int, **fields: object) -> None:
        """An event that a client of this user caused: beyond a burst it is counted and left out."""
        if _PRIORITY[level] > self._threshold:
            return
        if len(self._buckets) > _MAX_SOURCES:
            self._buckets.clear()
        bucket = self._buckets.setdefault(uid, _Bucket())
        if not bucket.take(time.monotonic()):
            return
        if bucket.left_out:
            words += f" [{bucket.left_out} lines about this user were left out]"
            bucket.left_out = 0
        self._write(level, event, words, {**fields, "uid": uid})

    def _write(self, level: str, event: str, words: str, fields: dict[str, object]) -> None:
        if _PRIORITY[level] > self._threshold:
            return
        known = " ".join(f"{key}={shorten(str(value), 80)}" for key, value in fields.items() if value is not None)
        text = shorten(words, 1000) + (f" ({known})" if known else "")
        priority = _PRIORITY[level]
        if self._journal is not None and self._journal.send(priority, event, f"{event}: {text}", fields):
            return
        # Where only stderr leads to the journal, a line begins with its priority, and the journal takes it off again.
        prefix = f"<{priority}>" if self._journal is not None else f"reefd: {level}: "
        with contextlib.suppress(OSError):  # nobody reads any more: no reason to stop serving
            self._stream.write(f"{prefix}{event}: {text}\n")
            self._stream.flush()


class _Bucket:
    __slots__ = ("at", "left_out", "tokens")

    def __init__(self) -> None:
        self.tokens = _BURST
        self.at = 0.0
        self.left_out = 0

    def take(self, now: float) -> bool:
        self.tokens = min(_BURST, self.tokens + (now - self.at) * _PER_SECOND)
        self.at = now
        if self.tokens < 1:
            self.left_out += 1
            return False
        self.tokens -= 1
        return True
