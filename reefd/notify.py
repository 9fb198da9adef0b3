# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how the service is: datagrams to $NOTIFY_SOCKET, nothing without it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

_EXTENSION_US = 10_000_000
_PAUSE_SECONDS = 3.0
RETRY_SECONDS = 5.0


def notify(**states: object) -> None:
    """notify(READY=1, STATUS="serving 2 tasks")."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    message = "\n".join(f"{key}={value}" for key, value in states.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)


def reloading() -> None:
    """The configuration is being read again; ends with the next READY=1."""
    notify(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)


@contextlib.contextmanager
def patience(limit: float) -> Iterator[None]:
    """While models are compiled or loaded: asks for more time, again and again, at most for `limit` seconds.

    Not at once: what is asked for is added to the watchdog's time too, until it is fed the next time.
    """
    over = threading.Event()

    def ask() -> None:
        end = time.monotonic() + limit
        while not over.wait(_PAUSE_SECONDS) and time.monotonic() < end:
            notify(EXTEND_TIMEOUT_USEC=_EXTENSION_US)

    asking = threading.Thread(target=ask, name="patience", daemon=True)
    if os.environ.get("NOTIFY_SOCKET"):
        asking.start()
    try:
        yield
    finally:
        over.set()
        if asking.ident is not None:
            asking.join()


def hold_back() -> None:
    """After a start that failed: systemd tries again at once, however often. Asked to end meanwhile, it ends with 0."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda *_: os._exit(0))
    notify(STATUS=f"cannot start, the log says why; another try every {RETRY_SECONDS:g} s")
    time.sleep(RETRY_SECONDS)


def watchdog_interval() -> float:
    """Seconds after which systemd gives the daemon up; 0: it does not watch."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(os.environ.get("WATCHDOG_USEC", "0") or 0) / 1e6
