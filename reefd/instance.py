# SPDX-License-Identifier: Apache-2.0
"""One daemon for each instance name and for each runtime directory: two files locked as long as it lives.

The instance's lock lies beside the shared-memory objects that carry its name, so that the two are always of one place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from reefd.regions import SHM


class InstanceError(Exception):
    """Another daemon is there, or a lock cannot be had; says who holds it and what to do."""


class Lock:
    """An exclusive lock on a file that holds the owner's pid. The kernel drops it when the process dies."""

    def __init__(self, path: Path, what: str, advice: str) -> None:
        self._path = path
        while True:
            self._descriptor = _open(path, what)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip() or "unknown"
                os.close(self._descriptor)
                raise InstanceError(f"{what} is in use by the reefd with pid {holder}: stop it, or {advice}") from None
            # The last owner may have removed the file between our open and our lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), path.lstat()):
                    break
            os.close(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        with contextlib.suppress(OSError):  # no room: the lock holds, only who has it stays unsaid
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Removes the file while the lock is held, so that nothing is left behind. Idempotent."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def _open(path: Path, what: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise InstanceError(f"{what}: {path} cannot be locked: {error.strerror}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise InstanceError(f"{what}: {path} belongs to uid {found.st_uid}: remove it, or choose another name")
    return descriptor


def lock_instance(instance: str) -> Lock:
    advice = "give this one another name (--instance)"
    return Lock(SHM / f"reef.{instance}.lock", f"instance {instance}", advice)


def lock_runtime_dir(directory: Path) -> Lock:
    advice = "give this one another directory (--runtime-dir)"
    return Lock(directory / "reefd.lock", f"runtime directory {directory}", advice)
