# SPDX-License-Identifier: Apache-2.0
"""Who may open a session: the kernel's word about the peer against the manifest's `allow`."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass

from reefd.manifest import Manifest
from reefd.wire import Refusal

_SO_PEERGROUPS = 59
_MAX_GROUPS = 256  # what Python's getsockopt can carry; a peer with more is known by its primary group only
_UCRED = struct.Struct("=iII")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as it was then."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]

    @property
    def user(self) -> str:
        return user_name(self.uid)


def peer_of(connection: socket.socket) -> Peer:
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MAX_GROUPS)
    except OSError as error:
        if error.errno not in (errno.ERANGE, errno.ENOPROTOOPT):
            raise
        raw = b""
    groups = struct.unpack(f"={len(raw) // 4}I", raw[: len(raw) // 4 * 4])
    return Peer(pid, uid, gid, frozenset((gid, *groups)))


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def admit(manifest: Manifest, peer: Peer) -> None:
    """Raises Refusal (EACCES) when the manifest does not let the peer submit. Names are looked up at this moment."""
    allow = manifest.allow
    # The daemon's own user could do anything to it anyway.
    if peer.uid in (0, os.geteuid()):
        return
    if allow is None:
        owner = user_name(os.geteuid())
        hint = f"only {owner} may use it: add `allow: {{users: [{peer.user}]}}` to its manifest"
        raise Refusal(errno.EACCES, f"task {manifest.task} does not admit user {peer.user} (uid {peer.uid}); {hint}")
    if any(_user_id(user) == peer.uid for user in allow.users):
        return
    if any(_group_id(group) in peer.groups for group in allow.groups):
        return
    hint = "add the user, or one of its groups, to `allow` in its manifest"
    raise Refusal(errno.EACCES, f"task {manifest.task} does not admit user {peer.user} (uid {peer.uid}); {hint}")


def _user_id(user: str | int) -> int | None:
    try:
        return user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        return None


def _group_id(group: str | int) -> int | None:
    try:
        return group if isinstance(group, int) else grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return None
