# SPDX-License-Identifier: Apache-2.0
"""The session socket: connections until they said a valid hello. Everything that arrives is hostile.

A connection that says nothing is dropped after a while, and no user can hold more than a few of them. A descriptor is
taken in only when the daemon already decided that it wants one (disposal.py says why).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reefd import disposal, wire
from reefd.admission import Peer, peer_of
from reefd.disposal import Arrival, Undertaker
from reefd.log import Log
from reefd.loop import Loop, Timer
from reefd.regions import Identity
from reefd.wire import Hello, Refusal

_BACKLOG = 1024
_ACCEPTS_A_TURN = 64
_HELLO_SECONDS = 2.0
_MAX_SILENT = 256
_MAX_SILENT_OF_A_USER = 32
_RIGHTS_AFTER_CREDENTIALS = socket.CMSG_SPACE(12) + socket.CMSG_LEN(4)  # room for exactly one
_PAUSE_SECONDS = 0.1  # when there are no descriptors left


@dataclass(slots=True, eq=False)
class Connection:
    """A peer that has not become a session yet."""

    socket: socket.socket
    peer: Peer
    descriptors: bool = False  # whether the hello carries any
    timer: Timer | None = None

    def answer(self, message: bytes, descriptors: tuple[int, ...] = ()) -> bool:
        """Sends a welcome. False: the peer is gone, or does not read."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={len(descriptors)}i", *descriptors))]
        try:
            self.socket.sendmsg([message], rights if descriptors else [], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True


class Listener:
    """Accepts, reads one hello of each connection, and hands both on.

    `on_hello(connection, hello)` takes the hello off the socket, answers, and either keeps the socket or closes it; a
    Refusal that it raises is sent to the peer. `inherited`: a listening socket in place of one of our own at `path`.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        undertaker: Undertaker,
        path: Path,
        epoch: int,
        on_hello: Callable[[Connection, Hello], None],
        inherited: socket.socket | None = None,
    ) -> None:
        self._loop = loop
        self._log = log
        self._undertaker = undertaker
        self._path = path
        self._epoch = epoch
        self._on_hello = on_hello
        self._silent: dict[Connection, None] = {}
        self._users: Counter[int] = Counter()
        self.refused = 0
        self._inherited = inherited is not None
        self._socket = inherited or bind(path, socket.SOCK_SEQPACKET, 0o666, _BACKLOG)
        loop.watch(self._socket, self._accept)

    def close(self) -> None:
        """The path goes, unless it is systemd's, and whoever has not said hello."""
        self._loop.forget(self._socket)
        self._socket.close()
        if not self._inherited:
            self._path.unlink(missing_ok=True)
        for connection in list(self._silent):
            self._silence_ends(connection)
            self._undertaker.close(connection.socket)

    # ---------------------------------------------------------------- silent connections

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(error)
                    return
                continue  # the peer went away before it was accepted
            disposal.prepare(accepted)
            connection = Connection(accepted, peer_of(accepted))
            self._take(connection)

    def _pause(self, error: OSError) -> None:
        """Without descriptors the queue would stay readable: look again later instead of spinning."""
        self._log.error("accept", f"no connection can be accepted: {error.strerror}; raise LimitNOFILE=")
        self._loop.forget(self._socket)
        self._loop.after(_PAUSE_SECONDS, lambda: self._loop.watch(self._socket, self._accept))

    def _take(self, connection: Connection) -> None:
        # libreef sends its hello with the connection, so it is usually there already.
        if self._read(connection):
            return
        self._make_room(connection.peer.uid)
        self._users[connection.peer.uid] += 1
        self._silent[connection] = None
        self._loop.watch(connection.socket, lambda: self._readable(connection))
        connection.timer = self._loop.after(_HELLO_SECONDS, lambda: self._timed_out(connection))

    def _make_room(self, uid: int) -> None:
        """The oldest connection goes, of this user or of the one with the most: who speaks soon is not disturbed."""
        if self._users[uid] < _MAX_SILENT_OF_A_USER:
            if len(self._silent) < _MAX_SILENT:
                return
            uid = max(self._users, key=lambda user: self._users[user])
        oldest = next(connection for connection in self._silent if connection.peer.uid == uid)
        self._silence_ends(oldest)
        self.refuse(oldest, Refusal(errno.EAGAIN, "too many connections that say nothing"))

    def _readable(self, connection: Connection) -> None:
        self._read(connection)

    def _timed_out(self, connection: Connection) -> None:
        self._silence_ends(connection)
        self.refuse(connection, Refusal(errno.ETIMEDOUT, f"no hello within {_HELLO_SECONDS:.0f} s"))

    def _silence_ends(self, connection: Connection) -> None:
        if connection in self._silent:
            del self._silent[connection]
            self._users[connection.peer.uid] -= 1
            self._users += Counter()  # forgets users without any
            self._loop.forget(connection.socket)
            if connection.timer is not None:
                connection.timer.cancel()

    # ---------------------------------------------------------------- hellos

    def _read(self, connection: Connection) -> bool:
        """False: nothing there yet."""
        found = disposal.look(connection.socket, wire.MAX_MESSAGE + 1)
        if found.arrival is Arrival.NOTHING:
            return False
        self._silence_ends(connection)
        if found.arrival is Arrival.HANG_UP:
            self._undertaker.close(connection.socket)
            return True
        connection.descriptors = found.arrival is Arrival.MESSAGE_WITH_DESCRIPTORS
        try:
            hello = wire.parse_hello(found.data)
            if connection.descriptors and hello.request != wire.RECLAIM:
                raise Refusal(errno.EPROTO, "a hello with descriptors that nobody asked for")
            self._on_hello(connection, hello)
        except Refusal as refusal:
            self.refuse(connection, refusal)
        except Exception:
            self._undertaker.close(connection.socket)
            raise
        return True

    def refuse(self, connection: Connection, refusal: Refusal) -> None:
        """Says why, to the peer and to the log, and closes."""
        peer = connection.peer
        self.refused += 1
        level = "debug" if refusal.code == -errno.ETIMEDOUT else "warning"
        self._log.client(level, "refused", str(refusal), code=refusal.name, uid=peer.uid, pid=peer.pid)
        connection.answer(wire.welcome(status=refusal.code, daemon_epoch=self._epoch, text=str(refusal)))
        self._undertaker.close(connection.socket)


def take_hello(connection: Connection) -> None:
    """Off the queue; only for one without descriptors."""
    connection.socket.recv(wire.MAX_MESSAGE)


def take_descriptor(connection: Connection) -> int | None:
    """Takes the hello off the queue, and the one descriptor that came with it; the kernel drops others."""
    room = _RIGHTS_AFTER_CREDENTIALS
    _, ancillary, _, _ = connection.socket.recvmsg(wire.MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(data) >= 4:
            descriptor: int = struct.unpack_from("=i", data)[0]
            return descriptor
    return None


def identify(loop: Loop, descriptor: int, then: Callable[[Identity | None], None]) -> None:
    """Which file a client's descriptor is, told by a thread that may hang. Closes it; the loop calls `then`."""

    def look() -> None:
        identity = None
        with contextlib.suppress(OSError):
            identity = Identity.of(os.fstat(descriptor))
            os.close(descriptor)
        loop.from_thread(lambda: then(identity))

    threading.Thread(target=look, name="identify", daemon=True).start()


def bind(path: Path, kind: socket.SocketKind, mode: int, backlog: int) -> socket.socket:
    """A listening socket at path, put there by a rename: it has its mode before anybody can find it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(temporary))
        temporary.chmod(mode)
        listener.listen(backlog)
        temporary.rename(path)
    except OSError:
        listener.close()
        temporary.unlink(missing_ok=True)
        raise
    return listener
