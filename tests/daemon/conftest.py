# SPDX-License-Identifier: Apache-2.0
"""A fixture that starts daemons and leaves nothing of them behind."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .reefd_process import Reefd


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that every user may enter: pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="reefd-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Reefd]]:
    """start(manifests, name=..., ...) starts a daemon; see Reefd."""
    daemons: list[Reefd] = []

    def make(*arguments, name: str = "only", **keywords) -> Reefd:
        place = directory / name
        place.mkdir(exist_ok=True)
        daemon = Reefd.__new__(Reefd)
        daemons.append(daemon)
        daemon.__init__(place, *arguments, **keywords)
        return daemon

    yield make
    for daemon in daemons:
        daemon.close()
