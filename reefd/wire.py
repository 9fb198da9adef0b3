# SPDX-License-Identifier: Apache-2.0
"""The messages of the session socket, as reef_abi.h defines them. A test compares every number here with the header."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass

from reefd import __version__

MAGIC = 0x46454552
ABI_MAJOR = 1
ABI_MINOR = 1
PROBE, OPEN, RECLAIM = 1, 2, 3

# struct reef_hello: magic, abi_major, abi_minor, size, request, session_id, reserved, task
HELLO = struct.Struct("<IHHIIQ40s64s")
# What keeps its place in every version: magic, abi_major, abi_minor, size.
HELLO_PREFIX = struct.Struct("<IHHI")
# struct reef_welcome: magic, abi_major, abi_minor, size, status, session_id, daemon_epoch, c_size, d_size, pid,
# reserved, version, text
WELCOME = struct.Struct("<IHHIiQQQQII64s256s")
MAX_MESSAGE = 4096


class Refusal(Exception):
    """A client is refused: `code` is the negative errno that it gets, the text says why and what to do."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = -abs(code)

    @property
    def name(self) -> str:
        return errno.errorcode.get(-self.code, str(self.code))


@dataclass(frozen=True, slots=True)
class Hello:
    """A checked hello."""

    request: int
    session_id: int
    task: str


def parse_hello(data: bytes) -> Hello:
    """Checks every byte of a hello. Raises Refusal."""
    if len(data) < HELLO_PREFIX.size:
        raise Refusal(errno.EPROTO, f"a hello of {len(data)} bytes: this is not libreef")
    magic, major, minor, size = HELLO_PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise Refusal(errno.EPROTO, "a hello without the magic number: this is not libreef")
    if major != ABI_MAJOR:
        ours = f"this reefd ({__version__}) speaks ABI {ABI_MAJOR}.{ABI_MINOR}"
        raise Refusal(
            errno.EPROTONOSUPPORT, f"{ours}, the client {major}.{minor}: install the libreef that came with it"
        )
    # A later minor version may have put something behind what we know, and into what is reserved here.
    if len(data) != size or size < HELLO.size or (size > HELLO.size and minor <= ABI_MINOR):
        raise Refusal(errno.EPROTO, f"a hello of {len(data)} bytes that claims {size}, expected {HELLO.size}")
    _, _, _, _, request, session_id, reserved, name = HELLO.unpack_from(data)
    if any(reserved) and minor <= ABI_MINOR:
        raise Refusal(errno.EPROTO, "a hello whose reserved bytes are not zero")
    if request not in (PROBE, OPEN, RECLAIM):
        raise Refusal(errno.EPROTO, f"a hello with the unknown request {request}")
    text, end, _ = name.partition(b"\0")
    if not end or not text.isascii() or (request == OPEN and not text):
        raise Refusal(errno.EINVAL, "the name of the task is empty, too long or not ASCII")
    return Hello(request, session_id, text.decode())


def welcome(
    *, status: int = 0, session_id: int = 0, daemon_epoch: int = 0, c_size: int = 0, d_size: int = 0, text: str = ""
) -> bytes:
    """A welcome; a text that is too long is cut."""
    return WELCOME.pack(
        MAGIC, ABI_MAJOR, ABI_MINOR, WELCOME.size, status, session_id, daemon_epoch, c_size, d_size, os.getpid(), 0,
        __version__.encode()[:63], text.encode("utf-8", "replace")[:255],
    )  # fmt: skip
