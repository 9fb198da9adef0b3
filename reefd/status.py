# SPDX-License-Identifier: Apache-2.0
"""What the daemon says about itself: one line for systemd, and everything for reefctl status."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from reefd import __version__
from reefd._engine import Engine
from reefd.admission import user_name
from reefd.config import Config
from reefd.listener import Listener
from reefd.sessions import Session, Sessions
from reefd.tasks import Task, Tasks

# The engine's histograms -> the names of their summaries.
_LATENCIES = ("queueing", "preemption", "execution", "end_to_end")


class Reporter:
    """Reads the engine's published counters; never disturbs it."""

    def __init__(self, settings: Config, engine: Engine, tasks: Tasks, sessions: Sessions) -> None:
        self._settings = settings
        self._engine = engine
        self._tasks = tasks
        self._sessions = sessions
        self._since = time.monotonic()
        self._events: Counter[str] = Counter()
        self.listener: Listener | None = None

    def count(self, event: str) -> None:
        """Events that an operator wants to see the number of: quarantines, floods, rejections."""
        self._events[event] += 1

    def line(self) -> str:
        refused = f", {len(self._tasks.refused)} refused" if self._tasks.refused else ""
        return f"serving {len(self._tasks)} tasks{refused}, {len(self._sessions)} sessions"

    def status(self) -> dict[str, Any]:
        """Everything, ready for JSON. Times are in the unit that their name ends with."""
        snapshot = self._engine.snapshot()
        tasks = {entry["task"]: entry for entry in snapshot.pop("tasks")}
        sessions = {entry["session"]: entry for entry in snapshot.pop("sessions")}
        return {
            "version": __version__,
            "pid": os.getpid(),
            "instance": self._settings.instance,
            "socket": str(self._settings.socket),
            "uptime_s": round(time.monotonic() - self._since, 3),
            "rss_bytes": _resident_bytes(),
            "device": self._engine.device,
            "engine": snapshot,
            "events": dict(self._events) | {"refused": self.listener.refused if self.listener else 0},
            "refused_tasks": self._tasks.refused,
            "tasks": [_task(task, tasks.get(task.number, {})) for task in self._tasks],
            "sessions": [_session(session, sessions.get(session.id, {})) for session in self._sessions],
        }


def _task(task: Task, counters: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in counters.items() if key not in (*_LATENCIES, "task", "name", "class")}
    return {
        "task": task.name,
        "class": task.manifest.task_class,
        "file": str(task.path),
        "models": task.manifest.resources(),
        "slots": task.manifest.slots,
        "deadline_ns": int(task.manifest.deadline),
        **plain,
        "latency": {name: summary(counters[name]) for name in _LATENCIES if name in counters},
    }


def _session(session: Session, counters: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in counters.items() if key not in ("session", "task")}
    return {
        "session": session.id,
        "task": session.task.name,
        "user": user_name(session.uid),
        "uid": session.uid,
        "pid": session.pid,
        "age_s": round(time.monotonic() - session.since, 3),
        "connected": session.socket is not None,
        "adopted": session.adopted,
        "leaving": session.leaving,
        **plain,
    }


def summary(histogram: dict[str, Any]) -> dict[str, float]:
    """Count, mean, percentiles and maximum in microseconds; a percentile is the upper bound of its bucket."""
    count = histogram["count"]
    mean = histogram["sum_ns"] / count / 1e3 if count else 0.0
    found = {"count": count, "mean_us": round(mean, 3), "max_us": histogram["max_ns"] / 1e3}
    for name, share in (("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)):
        found[name] = percentile(histogram, share) / 1e3
    return found


def percentile(histogram: dict[str, Any], share: float) -> float:
    """In nanoseconds; 0 for an empty histogram."""
    wanted = share * histogram["count"]
    seen = 0
    for upper, count in histogram["buckets"]:
        seen += count
        if seen >= wanted:
            return float(min(upper, histogram["max_ns"]))
    return 0.0


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
