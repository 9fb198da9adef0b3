# SPDX-License-Identifier: Apache-2.0
"""Reading and closing a client's socket without running what the client put into it.

A message may carry descriptors. Taking it off the queue, or closing the socket over it, closes them, in the thread that
does so, and a close can take as long as its owner likes: a TCP socket that lingers, a file of the client's own file
system. So a message is looked at first, and a socket with descriptors in its queue is closed by a thread that may hang.
"""

from __future__ import annotations

import contextlib
import enum
import queue
import socket
import struct
import threading
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("=iII")
_MAX_PENDING = 1024


class Arrival(enum.Enum):
    """What is at the head of a socket's queue."""

    NOTHING = enum.auto()
    MESSAGE = enum.auto()
    MESSAGE_WITH_DESCRIPTORS = enum.auto()
    HANG_UP = enum.auto()


@dataclass(frozen=True, slots=True)
class Look:
    """The first message, still in the queue."""

    arrival: Arrival
    data: bytes = b""


def prepare(connection: socket.socket) -> None:
    """Before the first look(). With SO_PASSCRED even an empty message carries something; a hang-up does not."""
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def look(connection: socket.socket, size: int) -> Look:
    """At most `size` bytes of the first message. It stays in the queue, and its descriptors in the kernel."""
    try:
        # Room for the credentials, which come first, and for no descriptor.
        data, ancillary, flags, _ = connection.recvmsg(size, socket.CMSG_LEN(_CREDENTIALS.size), socket.MSG_PEEK)
    except BlockingIOError:
        return Look(Arrival.NOTHING)
    except OSError:
        return Look(Arrival.HANG_UP)
    if not ancillary:
        return Look(Arrival.HANG_UP)
    return Look(Arrival.MESSAGE_WITH_DESCRIPTORS if flags & socket.MSG_CTRUNC else Arrival.MESSAGE, data)


class Undertaker:
    """Closes clients' sockets."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def close(self, connection: socket.socket) -> None:
        """Hangs up at once; the descriptor goes now, or when the thread gets to it. Idempotent."""
        if connection.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # nothing more can come
        while (found := look(connection, 1)).arrival is Arrival.MESSAGE:
            # A peer that hangs up with our answer unread makes this fail once, and leaves its messages in the queue.
            with contextlib.suppress(OSError):
                connection.recv(1)
        if found.arrival is not Arrival.MESSAGE_WITH_DESCRIPTORS or self._queue.qsize() >= _MAX_PENDING:
            connection.close()
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="undertaker", daemon=True)
            self._thread.start()
        self._queue.put(connection)

    def _run(self) -> None:
        while True:
            connection = self._queue.get()
            with contextlib.suppress(OSError):
                while look(connection, 1).arrival in (Arrival.MESSAGE, Arrival.MESSAGE_WITH_DESCRIPTORS):
                    connection.recv(1)
            connection.close()
