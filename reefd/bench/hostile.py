# SPDX-License-Identifier: Apache-2.0
"""Clients that do harm, for `reefctl bench interference` and the tests: hostile.py SOCKET TASK KIND, until killed.

They speak the session socket by hand (reef_abi.h) and write into region C whatever they like. They run in SCHED_IDLE,
so that what they cost others is what the daemon lets them cost, not what the kernel's scheduler gives them.
"""

from __future__ import annotations

import mmap
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable

from libreef.errors import ReefError
from reefd import wire

_SQ = 4096  # region C: the submission ring behind the page of hot words
_PAUSE = 0.001
_PATIENCE = float(os.environ.get("REEF_PATIENCE", "10"))  # seconds for an answer
_SQE = struct.Struct("<HHIIIQQQQQII")


class Session:
    """Opened by hand. Raises OSError when the daemon refuses."""

    def __init__(self, path: str, task: str) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(_PATIENCE)
        self.connection.connect(path)
        hello = wire.HELLO.pack(
            wire.MAGIC, wire.ABI_MAJOR, wire.ABI_MINOR, wire.HELLO.size, wire.OPEN, 0, b"", task.encode()
        )
        self.connection.send(hello)
        data, descriptors, _, _ = socket.recv_fds(self.connection, wire.MAX_MESSAGE, 3)
        if len(descriptors) != 3:
            self.connection.close()
            if len(data) != wire.WELCOME.size:
                raise ConnectionResetError("the daemon went away in the handshake")
            raise OSError(-wire.WELCOME.unpack(data)[4], "refused")
        self.c, self.d, self.doorbell = descriptors
        self.memory = mmap.mmap(self.c, os.fstat(self.c).st_size)
        self.tail = 0

    def entry(self, slot: int, generation: int) -> bytes:
        """As an honest client would write it, without a CRC."""
        return _SQE.pack(0, 0, 0, slot, generation, self.tail, 0, self.tail, 0, 0, 0, 0)

    def submit(self, entry: bytes) -> None:
        """Into the next place of a ring of 8, and rings."""
        at = _SQ + self.tail % 8 * 64
        self.memory[at : at + 64] = entry
        self.tail += 1
        self.memory[0:4] = struct.pack("<I", self.tail & 0xFFFFFFFF)
        self.ring()

    def ring(self) -> None:
        os.eventfd_write(self.doorbell, 1)

    def close(self) -> None:
        self.memory.close()
        for descriptor in (self.c, self.d, self.doorbell):
            os.close(descriptor)
        self.connection.close()


def garbage(path: str, task: str) -> None:
    """Loses one session after the other to entries of random bytes."""
    chance = random.Random(os.getpid())
    while True:
        session = Session(path, task)
        session.submit(chance.randbytes(64))
        session.close()


def indices(path: str, task: str) -> None:
    """Ring indices that jump, in sessions that are replaced."""
    chance = random.Random(os.getpid())
    while True:
        session = Session(path, task)
        session.memory[0:4] = chance.randbytes(4)
        session.memory[128:132] = chance.randbytes(4)
        session.ring()
        session.close()


def doorbell(path: str, task: str) -> None:
    """Rings without an entry, as fast as it may."""
    session = Session(path, task)
    while True:
        session.ring()


def flood(path: str, task: str) -> None:
    """Good requests as fast as they are taken, all slots in flight, and never looks at a completion before the last."""
    from libreef import Client

    with Client(task, socket=path, timeout=30.0) as client:
        loans = [client.loan() for _ in range(4)]
        pending = [loan.submit() for loan in loans]
        while True:
            for index, loan in enumerate(loans):
                pending[index].result()
                pending[index] = loan.submit()


def undrained(path: str, task: str) -> None:
    """Submits into every slot and never consumes a completion, again and again."""
    while True:
        session = Session(path, task)
        for _ in range(2):
            for slot in range(4):
                session.submit(session.entry(slot, 1 + session.tail // 4))
        session.close()


def half_open(path: str, _task: str) -> None:
    """Connections that say nothing, or half of a hello."""
    while True:
        silent = []
        for number in range(64):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.connect(path)
            if number % 2:
                connection.send(b"REEF" * (number % 32))
            silent.append(connection)
        for connection in silent:
            connection.close()


def truncated(path: str, task: str) -> None:
    """Cuts its region short under the daemon's hands."""
    while True:
        session = Session(path, task)
        os.ftruncate(session.c, 4096 * (os.getpid() % 2))
        session.ring()
        session.connection.close()
        for descriptor in (session.c, session.d, session.doorbell):
            os.close(descriptor)


def scribble(path: str, task: str) -> None:
    """Writes random words all over its region while its requests are taken and run."""
    chance = random.Random(os.getpid())
    while True:
        session = Session(path, task)
        for number in range(200):
            if number % 10 == 0:
                session.submit(session.entry(number // 10 % 4, 1 + number // 40))
            at = chance.choice((0, 128, 256, 384, _SQ + chance.randrange(512), chance.randrange(len(session.memory))))
            at = min(at, len(session.memory) - 4)
            session.memory[at : at + 4] = chance.randbytes(4)
        session.close()


KINDS: dict[str, Callable[[str, str], None]] = {
    call.__name__: call for call in (garbage, indices, doorbell, flood, undrained, half_open, truncated, scribble)
}


def main() -> None:
    path, task, kind = sys.argv[1:]
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        try:
            KINDS[kind](path, task)
        except (OSError, ReefError):  # too many sessions at once, or hung up, or nobody there: the next attempt
            time.sleep(_PAUSE)


if __name__ == "__main__":
    main()
