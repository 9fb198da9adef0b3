# SPDX-License-Identifier: Apache-2.0
"""Finding the daemon and opening a session with it."""

from __future__ import annotations

import errno
import math
import os
import time
from typing import Any

from libreef._reef import ffi, lib
from libreef.errors import DaemonUnreachable, UnknownTask, error_of
from libreef.model import DaemonInfo

NULL = ffi.NULL
SLICE_NS = 100_000_000  # calls into C sleep this long at most, so that signals (Ctrl-C) find Python awake

SocketPath = str | os.PathLike[str]


def _path(socket: SocketPath | None) -> Any:
    return NULL if socket is None else os.fsencode(socket)


def deadline_of(timeout: float | None) -> float:
    """On time.monotonic()'s clock."""
    return math.inf if timeout is None else time.monotonic() + timeout


def slice_ns(deadline: float) -> int:
    """Nanoseconds until the deadline, at least 0 and at most a slice."""
    left = deadline - time.monotonic()
    return SLICE_NS if left * 1e9 > SLICE_NS else max(int(left * 1e9), 0)


def probe(socket: SocketPath | None = None, *, timeout: float | None = 0.0) -> DaemonInfo:
    """Who listens there? Waits up to `timeout` seconds for a daemon; `DaemonUnreachable` or `AbiMismatch` otherwise."""
    info = ffi.new("struct reef_daemon_info *")
    path = _path(socket)
    deadline = deadline_of(timeout)
    while True:
        left = slice_ns(deadline)
        code = lib.reef_probe(path, left, info)
        if code == 0:
            version = ffi.string(info.version).decode(errors="replace")
            return DaemonInfo((info.abi_major, info.abi_minor), info.pid, info.daemon_epoch, version)
        nobody = code in (-errno.ENOENT, -errno.ECONNREFUSED)
        # Where systemd listens, a client can be connected before its daemon is there, or to one that hangs.
        if (nobody or code == -errno.ETIMEDOUT) and left:
            continue
        where = os.fsdecode(path) if path else os.environ.get("REEF_SOCKET") or "/run/reefd/reef.sock"
        if nobody:
            raise DaemonUnreachable(code, f"no reefd at {where}: is it running, and is REEF_SOCKET right?")
        if code == -errno.EPROTONOSUPPORT:
            ours = f"{lib.REEF_ABI_MAJOR}.{lib.REEF_ABI_MINOR}"
            theirs = f"{info.abi_major}.{info.abi_minor}"
            words = f"speaks ABI {theirs}, this libreef speaks {ours}: install the libreef that came with it"
            raise error_of(code, f"reefd at {where} {words}")
        raise error_of(code)


def open_session(task: str, socket: SocketPath | None, timeout: float | None, spin: float, reconnect: bool) -> Any:
    """An open session. Waits for a daemon first, in slices, so that Ctrl-C works; then it answers at once."""
    deadline = deadline_of(timeout)
    name, path = task.encode(), _path(socket)
    name_buffer = ffi.new("char[]", name)
    path_buffer = path if path == NULL else ffi.new("char[]", path)
    reason = ffi.new("char[]", lib.REEF_TEXT_MAX)
    params = ffi.new("struct reef_open_params *")
    params.size = ffi.sizeof("struct reef_open_params")
    params.task = name_buffer
    params.socket = path_buffer
    params.timeout_ns = 0
    params.spin_ns = -1 if spin == math.inf else int(spin * 1e9)
    params.flags = 0 if reconnect else lib.REEF_OPEN_NO_RECONNECT
    params.reason = reason
    session = ffi.new("reef_session **")
    while True:
        left = max(0.0, deadline - time.monotonic())
        probe(socket, timeout=None if left == math.inf else left)
        code = lib.reef_open(params, session)
        if code == 0:
            return session[0]
        words = ffi.string(reason).decode(errors="replace")
        # The daemon may have gone since it was probed; only the words tell that from a task it does not have.
        gone = code == -errno.ECONNREFUSED or (code == -errno.ENOENT and words.startswith("no reefd"))
        if gone and left > 0:
            continue
        if code == -errno.ENOENT:
            raise (DaemonUnreachable if gone else UnknownTask)(code, words)
        raise error_of(code, words)
