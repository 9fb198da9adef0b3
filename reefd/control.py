# SPDX-License-Identifier: Apache-2.0
"""The control socket, for reefctl: a line of JSON in, a line of JSON out. Only the daemon's user and root reach it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from reefd.admission import peer_of
from reefd.listener import bind
from reefd.loop import Loop, Timer

_BACKLOG = 8
_MAX_CONNECTIONS = 8
_MAX_REQUEST = 4096
_SECONDS = 5.0


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What reefctl asks."""

    verb: str


class ControlError(Exception):
    """A request that cannot be answered; the text goes back."""


class Later:
    """What a verb returns whose answer takes a while. `finish` may be called at once."""

    def __init__(self) -> None:
        self._then: Callable[[object], None] | None = None
        self._result: object = None
        self._finished = False

    def finish(self, result: object) -> None:
        """With the answer, or with a ControlError. Once, on the loop's thread."""
        self._result, self._finished = result, True
        if self._then is not None:
            self._then(result)

    def then(self, call: Callable[[object], None]) -> None:
        self._then = call
        if self._finished:
            call(self._result)


class _Talk:
    """One request and its answer."""

    def __init__(self, control: Control, connection: socket.socket) -> None:
        self._control = control
        self._connection = connection
        self._received = b""
        self._answer = memoryview(b"")
        self.timer: Timer | None = None

    def readable(self) -> None:
        try:
            data = self._connection.recv(_MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        if not data or len(self._received) > _MAX_REQUEST:
            self._control.end(self, self._connection)
        elif self._received.endswith(b"\n"):
            self._control.loop.forget(self._connection)
            answer = self._control.answer(self._received)
            if isinstance(answer, Later):
                if self.timer is not None:
                    self.timer.cancel()  # as long as it takes; the number of talks is limited
                answer.then(self._send)
            else:
                self._send(answer)

    def _send(self, answer: object) -> None:
        if self._control.knows(self):
            self._answer = memoryview(encode(answer))
            self._control.loop.watch(self._connection, self.writable, write=True)

    def writable(self) -> None:
        try:
            sent = self._connection.send(self._answer, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._answer)
        self._answer = self._answer[sent:]
        if not self._answer:
            self._control.end(self, self._connection)

    def timed_out(self) -> None:
        self._control.end(self, self._connection)


def encode(answer: object) -> bytes:
    """A line of JSON."""
    return msgspec.json.encode({"error": str(answer)} if isinstance(answer, Exception) else answer) + b"\n"


class Control:
    """Listens at `path`. `verbs` maps a verb to the function whose result, now or Later, is sent."""

    def __init__(self, loop: Loop, path: Path, verbs: dict[str, Callable[[], object]]) -> None:
        self.loop = loop
        self._path = path
        self._verbs = verbs
        self._talks: dict[_Talk, socket.socket] = {}
        self._socket = bind(path, socket.SOCK_STREAM, 0o600, _BACKLOG)
        loop.watch(self._socket, self._accept)

    def close(self) -> None:
        for talk, connection in list(self._talks.items()):
            self.end(talk, connection)
        self.loop.forget(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def answer(self, request: bytes) -> object:
        """What is to be sent, a ControlError, or Later."""
        try:
            verb = msgspec.json.decode(request, type=Request).verb
            if verb not in self._verbs:
                raise ControlError(f"unknown verb {verb!r}; there are: {', '.join(self._verbs)}")
            return self._verbs[verb]()
        except (msgspec.MsgspecError, UnicodeDecodeError, ControlError) as error:
            return ControlError(str(error))

    def knows(self, talk: _Talk) -> bool:
        """Whether the talk goes on: it may have been closed while its answer was made."""
        return talk in self._talks

    def end(self, talk: _Talk, connection: socket.socket) -> None:
        self._talks.pop(talk, None)
        if talk.timer is not None:
            talk.timer.cancel()
        self.loop.forget(connection)
        connection.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        if len(self._talks) >= _MAX_CONNECTIONS or peer_of(connection).uid not in (0, os.geteuid()):
            connection.close()
            return
        connection.setblocking(False)
        talk = _Talk(self, connection)
        self._talks[talk] = connection
        talk.timer = self.loop.after(_SECONDS, talk.timed_out)
        self.loop.watch(connection, talk.readable)
