# SPDX-License-Identifier: Apache-2.0
"""Who is told how far a compilation is."""

from typing import Protocol


class Progress(Protocol):
    def stage(self, name: str) -> None:
        """One of driver.STAGES begins."""

    def step(self, done: int, total: int, what: str) -> None:
        """`what` is the node or kernel in work; `done` of `total` are behind it."""


class _Silent:
    def stage(self, name: str) -> None:
        pass

    def step(self, done: int, total: int, what: str) -> None:
        pass


SILENT = _Silent()
