# SPDX-License-Identifier: Apache-2.0
"""Sockets that systemd opened for us (sd_listen_fds(3)): clients that connect during a restart wait in its queue."""

from __future__ import annotations

import os
import socket

_FIRST = 3


class ActivationError(Exception):
    """What systemd handed over is not what reefd.socket should give."""


def inherited(kind: socket.SocketKind) -> socket.socket | None:
    """The one listening unix socket of this kind, ready to accept without waiting; None: nothing was handed over."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if count == 0:
        return None
    if count != 1:
        raise ActivationError(f"systemd handed over {count} sockets, expected one: correct reefd.socket")
    given = socket.socket(fileno=_FIRST)
    listening = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if given.family != socket.AF_UNIX or given.type != kind or not listening:
        raise ActivationError("systemd handed over another socket than ListenSequentialPacket=: correct reefd.socket")
    given.setblocking(False)
    given.set_inheritable(False)
    return given
