# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how the service is: datagrams to $NOTIFY_SOCKET, nothing without it."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(**states: object) -> None:
    """notify(READY=1, STATUS="serving 2 tasks")."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    message = "\n".join(f"{key}={value}" for key, value in states.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)


def watchdog_interval() -> float:
    """Seconds after which systemd gives the daemon up; 0: it does not watch."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(os.environ.get("WATCHDOG_USEC", "0") or 0) / 1e6
