# SPDX-License-Identifier: Apache-2.0
"""A daemon to attack: at the end of each test it still runs, found no internal error, and leaves nothing behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.reefd_process import Reefd

from .beside import MANIFESTS


@pytest.fixture
def daemon() -> Iterator[Reefd]:
    with tempfile.TemporaryDirectory(prefix="reefd-hostile-") as name:
        Path(name).chmod(0o755)  # every user reaches its socket
        yield from _daemon(Path(name))


def _daemon(place: Path) -> Iterator[Reefd]:
    (place / "reefd.yaml").write_text("max_sessions: 1000\n")
    daemon = Reefd(place, MANIFESTS, options=("--config", place / "reefd.yaml", "--log-level", "warning"), wait=False)
    try:
        daemon.wait_for(lambda: daemon.socket.exists())
        yield daemon
        assert "internal:" not in daemon.log() and daemon.process.poll() is None, daemon.log()[-2000:]
        assert daemon.stop() == 0 and daemon.shm() == []
    finally:
        daemon.close()
