# SPDX-License-Identifier: Apache-2.0
"""reefctl status: asks the daemon over its control socket and shows the answer. Imports nothing slow."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from reefd import config
from reefd.yamlfile import FileError

_SECONDS = 5.0


class NoDaemon(Exception):
    """Nobody answers; says where and what to do."""


def status(
    *,
    json: Annotated[bool, Parameter(negative="", help="the whole answer as one JSON object")] = False,
    runtime_dir: Annotated[Path | None, Parameter(help="the daemon's runtime directory")] = None,
    config_file: Annotated[Path | None, Parameter(name="--config", help="the daemon's configuration file")] = None,
) -> int:
    """Show the daemon's tasks and sessions: counters since the start, latencies as median and 99th percentile."""
    try:
        settings = config.load(config_file, {"runtime_dir": str(runtime_dir.absolute()) if runtime_dir else None})
        answer = ask(settings.control_socket, "status")
        found = msgspec.json.decode(answer)
        if "error" in found:
            raise NoDaemon(f"{settings.control_socket}: {found['error']}")
    except (FileError, NoDaemon, msgspec.MsgspecError) as error:
        print(error, file=sys.stderr)
        return 1
    print(answer.decode() if json else render(found))
    return 0


def ask(path: Path, verb: str, *, seconds: float = _SECONDS) -> bytes:
    """One request, one answer, waited for `seconds`. Raises NoDaemon."""
    pieces: list[bytes] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode({"verb": verb}) + b"\n")
            while piece := connection.recv(1 << 16):
                pieces.append(piece)
    except OSError as error:
        hint = "is reefd running? (--runtime-dir names another one)"
        if not config.is_system(os.geteuid()):
            hint = "is a reefd of yours running? (the system's one answers root: sudo reefctl)"
        if isinstance(error, PermissionError):
            hint = "only root and the daemon's user may ask"
        raise NoDaemon(f"{path}: {error.strerror or error}; {hint}") from error
    if not pieces:
        raise NoDaemon(f"{path}: the daemon closed the connection without an answer")
    return b"".join(pieces).rstrip(b"\n")


def render(found: dict[str, Any]) -> str:
    """For people."""
    device = found["device"]
    head = f"reefd {found['version']}, instance {found['instance']}, pid {found['pid']}, up {found['uptime_s']:.0f} s"
    lines = [head, f"{device['name']}: {device['detail']}, {device['compute_units']} compute units", ""]
    tasks = [["TASK", "CLASS", "SESSIONS", "DONE", "FAILED", "LATE", "PREEMPTED", "P50 MS", "P99 MS", "MAX MS"]]
    for task in found["tasks"]:
        total = task["latency"].get("end_to_end", {})
        times = [f"{total[key] / 1e3:.3f}" if total.get("count") else "-" for key in ("p50_us", "p99_us", "max_us")]
        counters = [str(task.get(key, 0)) for key in ("sessions", "completed", "failed", "late", "preempted")]
        tasks.append([task["task"], task["class"], *counters, *times])
    lines += table(tasks)
    for name, reason in found["refused_tasks"].items():
        lines.append(f"{name}: refused: {reason}")
    if found["sessions"]:
        sessions = [["SESSION", "TASK", "USER", "PID", "AGE S", "DONE", "FAILED", "LATE", "STATE"]]
        for session in found["sessions"]:
            counters = [str(session.get(key, 0)) for key in ("completed", "failed", "late")]
            place = [str(session["session"]), session["task"], session["user"], str(session["pid"])]
            sessions.append([*place, f"{session['age_s']:.0f}", *counters, state_of(session)])
        lines += ["", *table(sessions)]
    engine = found["engine"]
    if engine["ladder"]:
        lines += ["", f"broken bounds: {engine['ladder_name']} (step {engine['ladder']} of 3)"]
    for task in found["tasks"]:
        broken = [f"{name} {count} times" for name, count in task.get("broken", {}).items() if count]
        if broken:
            lines.append(f"{task['task']} broke its bounds: {', '.join(broken)}")
    events = [f"{count} {name}" for name, count in found["events"].items() if count]
    return "\n".join([*lines, "", "events: " + ", ".join(events)] if events else lines)


def state_of(session: dict[str, Any]) -> str:
    if session["leaving"]:
        return "leaving"
    if session.get("verdict"):
        return "quarantined"
    if not session["connected"]:
        return "waiting for its client"
    return "adopted" if session["adopted"] else "open"


def table(rows: list[list[str]]) -> list[str]:
    """Columns of equal width; numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [all(row[i][:1] in "0123456789-" for row in rows[1:]) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
