# SPDX-License-Identifier: Apache-2.0
"""A fixture that starts daemons and leaves nothing of them behind."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from reefd_process import Reefd


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "as_root: processes of several users take part, which only root can start")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("as_root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="run as root: processes of several users take part"))


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
