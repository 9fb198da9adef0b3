# SPDX-License-Identifier: Apache-2.0
"""The shared-memory objects of sessions: making, finding, checking and removing them.

The names are /reef.<instance>.<task>.<session>.c and .d. No client ever opens one: the session socket hands out
descriptors. The names exist so that a restarted daemon finds its sessions.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import posix_ipc

SHM = Path("/dev/shm")
MODE = 0o600


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file an object is, whatever its name: device and inode."""

    device: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Identity:
        return cls(found.st_dev, found.st_ino)


@dataclass(slots=True)
class Regions:
    """Both objects of a session, open. D for clients is a descriptor that cannot write."""

    name: str  # without .c and .d
    c_fd: int
    d_fd: int
    c_size: int
    d_size: int

    @property
    def identities(self) -> tuple[Identity, Identity]:
        return Identity.of(os.fstat(self.c_fd)), Identity.of(os.fstat(self.d_fd))

    def open_read_only(self) -> int:
        """D once more, for a client. Raises OSError."""
        descriptor = _open(f"{self.name}.d", os.O_RDONLY)
        if os.path.samestat(os.fstat(descriptor), os.fstat(self.d_fd)):
            return descriptor
        os.close(descriptor)
        raise OSError(f"{self.name}.d was replaced while the daemon was running")

    def close(self) -> None:
        """The descriptors; mappings and names stay. Idempotent."""
        for descriptor in (self.c_fd, self.d_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self.c_fd = self.d_fd = -1


def object_name(instance: str, task: str, session: int) -> str:
    return f"reef.{instance}.{task}.{session}"


def create(name: str, c_size: int, d_size: int) -> Regions:
    """Two new objects, their memory reserved. Raises OSError; then nothing is left of them."""
    made: list[int] = []
    try:
        for suffix, size in ((".c", c_size), (".d", d_size)):
            made.append(_create(name + suffix, size))
    except (OSError, posix_ipc.Error):
        for suffix, descriptor in zip((".c", ".d"), made, strict=False):
            os.close(descriptor)
            _unlink(name + suffix)
        raise
    return Regions(name, made[0], made[1], c_size, d_size)


def _create(name: str, size: int) -> int:
    try:
        memory = posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREX, mode=MODE)
    except posix_ipc.ExistentialError as error:
        raise FileExistsError(f"/dev/shm/{name} exists, and is not this daemon's") from error
    descriptor: int = memory.fd
    try:
        os.fchmod(descriptor, MODE)  # whatever the umask says
        os.ftruncate(descriptor, size)
        # Memory that is not there is an error now, not a SIGBUS later.
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.close(descriptor)
        _unlink(name)
        raise
    return descriptor


def remove(name: str) -> None:
    """Unlinks both objects; what is mapped or open stays alive. Idempotent."""
    for suffix in (".c", ".d"):
        _unlink(name + suffix)


def _unlink(name: str) -> None:
    with contextlib.suppress(posix_ipc.ExistentialError, posix_ipc.PermissionsError):
        posix_ipc.unlink_shared_memory(f"/{name}")


def _open(name: str, flags: int) -> int:
    return os.open(SHM / name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


# ---------------------------------------------------------------- what a predecessor left


class Unusable(Exception):
    """An object that is not adopted, and why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A session that a predecessor left: its name without .c and .d, and which of the two exist."""

    name: str
    task: str
    session: int
    suffixes: tuple[str, ...]


def left_behind(instance: str) -> tuple[list[Found], list[str]]:
    """Sessions of this instance in /dev/shm, and names with its prefix that it never makes."""
    pattern = re.compile(re.escape(f"reef.{instance}.") + r"([A-Za-z0-9_-]{1,63})\.([1-9][0-9]{0,18})(\.[cd])")
    sessions: dict[str, tuple[str, int, list[str]]] = {}
    strangers: list[str] = []
    for name in sorted(entry.name for entry in SHM.iterdir()):
        if not name.startswith(f"reef.{instance}.") or name == f"reef.{instance}.lock":
            continue
        match = pattern.fullmatch(name)
        if match is None:
            strangers.append(name)
        else:
            entry = sessions.setdefault(name[:-2], (match[1], int(match[2]), []))
            entry[2].append(match[3])
    return [Found(name, task, number, tuple(found)) for name, (task, number, found) in sessions.items()], strangers


def open_left_behind(found: Found) -> Regions:
    """Opens a pair that only this daemon's user can have made. Raises Unusable."""
    if found.suffixes != (".c", ".d"):
        raise Unusable(f"only its {found.suffixes[0]} is there")
    opened: list[int] = []
    sizes: list[int] = []
    try:
        for suffix in found.suffixes:
            descriptor = _open(found.name + suffix, os.O_RDWR)
            opened.append(descriptor)
            status = os.fstat(descriptor)
            _check_ours(status, suffix)
            sizes.append(status.st_size)
    except (OSError, Unusable) as error:
        for descriptor in opened:
            os.close(descriptor)
        raise Unusable(str(error)) from error
    return Regions(found.name, opened[0], opened[1], sizes[0], sizes[1])


def _check_ours(status: os.stat_result, suffix: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unusable(f"its {suffix} is not a regular file")
    if status.st_uid != os.geteuid():
        raise Unusable(f"its {suffix} belongs to uid {status.st_uid}")
    if stat.S_IMODE(status.st_mode) != MODE:
        raise Unusable(f"its {suffix} has mode {stat.S_IMODE(status.st_mode):04o}, not 0600")
    if status.st_nlink != 1:
        raise Unusable(f"its {suffix} has {status.st_nlink} names")


def remove_ours(name: str) -> bool:
    """Unlinks a pair that was refused, those of its objects that belong to this user. True: nothing is left of it."""
    gone = True
    for suffix in (".c", ".d"):
        with contextlib.suppress(FileNotFoundError):
            if (SHM / (name + suffix)).lstat().st_uid == os.geteuid():
                (SHM / (name + suffix)).unlink()
            else:
                gone = False
    return gone
