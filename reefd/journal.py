# SPDX-License-Identifier: Apache-2.0
"""The journal's native protocol: one datagram for each entry, with fields that can be searched for.

    journalctl -u reefd REEF_TASK=obstacle-detection
    journalctl -x MESSAGE_ID=...      with the explanation from systemd/reefd.catalog

systemd.io/JOURNAL_NATIVE_PROTOCOL defines it. Written here because systemd-python has no wheels and building it needs
libsystemd-dev, which a machine that only runs the daemon does not have.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

SOCKET = "/run/systemd/journal/socket"

# Events that an operator may want to find, alert on, or have explained. systemd/reefd.catalog has one entry for each.
MESSAGE_IDS = {
    "ready": "5478e64283fd492488c4106d00f05baa",
    "start": "377175e5c61942de87784f7dc263b238",
    "stopped": "29a8c7adc7c34c49bdeea859f38c4d3a",
    "adopted": "560062daff124e8a9d26936bd92ca113",
    "not-adopted": "decbb0d7807b4981a1ef748c0953d534",
    "manifest-refused": "e9862a9e98e449229b71dca24d41c1a3",
    "task-refused": "a9380301789e4e398c7042ae961afed3",
    "reloaded": "4c9fb48779e74307aaabb56110fe6857",
    "reload-refused": "36824e2362fd4a9d983ada4d059232d4",
    "refused": "aea3e7d5943d42d8b423a6fdd9ea70f5",
    "quarantine": "3ee635ef62b04a988f20db1d8cd7312e",
    "planted": "d99f8e75f58048f9ba2262ffa27855f3",
    "dropped": "9028757c7e7b4ce8aee00a6e872ef9db",
    "damaged": "17f6b7dd90e8465180a9d66901b0c253",
    "flooding": "5ff40f53c984452887b43e4959f905e9",
    "rejected": "d1e5c09ec86a47e49d8648e8fd3e9791",
    "device-stuck": "67361cb094eb499a855dd12021b1a7e7",
    "internal": "f838f3a02d6e4542a34da686d3ede42a",
    "bounds": "374ca168647d4e8db36d986cf80ea219",
    "staged": "4428812c1bfb4c2cbfb018c5187dac68",
}


class Journal:
    """Sends entries without ever waiting: an entry for which there is no room is lost."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, priority: int, event: str, message: str, fields: dict[str, object]) -> bool:
        """False: the journal did not take it. Fields appear as REEF_<NAME>."""
        entry = [_field("MESSAGE", message), _field("PRIORITY", priority), _field("SYSLOG_IDENTIFIER", "reefd")]
        entry.append(_field("REEF_EVENT", event))
        if event in MESSAGE_IDS:
            entry.append(_field("MESSAGE_ID", MESSAGE_IDS[event]))
        entry += [_field(f"REEF_{key.upper()}", value) for key, value in fields.items() if value is not None]
        with contextlib.suppress(OSError):
            self._socket.sendto(b"".join(entry), self._path)
            return True
        return False


def is_stderr() -> bool:
    """Whether stderr goes to the journal: the check that systemd.exec(5) gives for $JOURNAL_STREAM."""
    try:
        device, inode = map(int, os.environ["JOURNAL_STREAM"].split(":"))
        found = os.fstat(2)
    except (KeyError, ValueError, OSError):
        return False
    return (found.st_dev, found.st_ino) == (device, inode)


def _field(name: str, value: object) -> bytes:
    data = str(value).encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
