# SPDX-License-Identifier: Apache-2.0
"""Completions for `async for`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from libreef.model import Completion

if TYPE_CHECKING:
    from libreef.client import Client


class Completions:
    """The completions that a client saw since this was made."""

    __slots__ = ("_client", "_ended", "_queue", "_waiter")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: deque[Completion] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _push(self, completion: Completion) -> None:
        self._queue.append(completion)
        self._wake()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def __aiter__(self) -> Completions:
        return self

    async def __anext__(self) -> Completion:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._waiter = self._client._waiter()
            await self._waiter
        return self._queue.popleft()

    async def aclose(self) -> None:
        """Stops listening."""
        if self in self._client._iterators:
            self._client._iterators.remove(self)
        self._end()
