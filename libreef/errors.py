# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as exceptions. Each has `code`, the negative errno of reef.h, and the daemon's words if any."""

from __future__ import annotations

import errno
from typing import Any

from libreef._reef import ffi, lib


class ReefError(Exception):
    """Anything that libreef reports. `code` is a negative errno, as in reef.h."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[ReefError], tuple[int, str]]:
        return type(self), (self.code, str(self))


class DaemonGone(ReefError):
    """No daemon: it died (and the client does not reconnect), was stopped, or nobody listens."""


class DaemonUnreachable(DaemonGone):
    """Nobody listens on the socket."""


class AccessDenied(ReefError):
    """The task's manifest does not name this user, or the socket's permissions do not."""


class UnknownTask(ReefError):
    """The daemon has no such task."""


class AbiMismatch(ReefError):
    """The daemon speaks another version of the shared-memory layout; the message names both."""


class ProtocolError(ReefError):
    """The daemon quarantined the session, or what listens is not reefd."""


class DamagedRegion(ReefError):
    """Shared memory failed a check: close the client and open another."""


class SessionLost(ReefError):
    """The daemon came back without this session: close the client and open another."""


class TooManySessions(ReefError):
    """The task has as many sessions as its manifest allows, or descriptors ran out."""


class DeadlineExceeded(ReefError):
    """The request's deadline passed before it was finished."""


class Cancelled(ReefError):
    """The request was cancelled, or gave way to a newer one (queue: latest)."""


class DeviceFailed(ReefError):
    """The device failed while this request ran."""


class PayloadDamaged(ReefError):
    """The inputs or the outputs did not arrive as they were sent (payload_crc in the manifest): the message says which,
    and of which slot. Fill the inputs and infer again; the session goes on."""


class Timeout(ReefError, TimeoutError):
    """The time given to a call is over. The request, if there is one, is still in flight."""


class NoFreeSlot(ReefError):
    """Every slot is in use."""


class InFlight(ReefError):
    """The loan's request is in flight: its tensors belong to the daemon until it completes."""


class StaleLoan(ReefError):
    """The loan was released (or its slot given to a newer request): its tensors are no longer yours."""


class ClientClosed(ReefError):
    """The client was closed."""


class ForkedProcess(ReefError):
    """The client belongs to the process that opened it; open another in this one."""


class WrongThread(ReefError):
    """Another thread is inside a call of this client. A client is used by one thread at a time."""


_CLASSES: dict[int, type[ReefError]] = {
    -errno.EACCES: AccessDenied,
    -errno.EAGAIN: NoFreeSlot,
    -errno.EBADMSG: DamagedRegion,
    -errno.EBUSY: InFlight,
    -errno.ECANCELED: Cancelled,
    -errno.ECONNREFUSED: DaemonUnreachable,
    -errno.EDEADLK: NoFreeSlot,
    -errno.EILSEQ: PayloadDamaged,
    -errno.EIO: DeviceFailed,
    -errno.EMFILE: TooManySessions,
    -errno.ENOTCONN: DaemonGone,
    -errno.EPROTO: ProtocolError,
    -errno.EPROTONOSUPPORT: AbiMismatch,
    -errno.ESHUTDOWN: DaemonGone,
    -errno.ESTALE: SessionLost,
    -errno.ETIME: DeadlineExceeded,
    -errno.ETIMEDOUT: Timeout,
}

SESSION_OVER = frozenset(
    -code
    for code in (errno.ENOTCONN, errno.ESTALE, errno.EPROTO, errno.EBADMSG, errno.ESHUTDOWN, errno.EPROTONOSUPPORT)
)
"""Errors of waiting after which nothing of the session will ever complete."""


def payload_damaged(task: str, model: str, raw: Any) -> PayloadDamaged:
    """From the `struct reef_completion` of a request that ended with -EILSEQ."""
    inputs = raw.flags & lib.REEF_DAMAGED_INPUTS
    what = "inputs are not what was submitted" if inputs else "outputs are not what the daemon computed"
    blame = " while it is in flight" if inputs else ""
    return PayloadDamaged(
        raw.status,
        f"{task}, slot {raw.slot}, model {model}: the {what} (by their CRC-32C); fill the inputs and infer again. "
        f"If it comes back: something writes into the slot's tensors{blame}, or the memory fails (dmesg, EDAC)",
    )


def error_of(code: int, reason: str = "") -> ReefError:
    """The exception for a negative errno; `reason` is what the daemon said, if anything."""
    words = ffi.string(lib.reef_strerror(code)).decode()
    return _CLASSES.get(code, ReefError)(code, reason or words)
