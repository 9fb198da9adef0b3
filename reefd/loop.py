# SPDX-License-Identifier: Apache-2.0
"""The control plane's event loop: descriptors, timers, signals, and results of helper threads. One thread runs it."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any


class Timer:
    """A call to be made later, unless it is cancelled."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """Calls back when a descriptor is ready, a timer is due, a signal came or a thread has a result.

    A callback that raises is reported to `on_error` and does not end the loop.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._on_error = on_error
        self._running = False
        self._results: deque[Callable[[], None]] = deque()
        self._signals: dict[int, Callable[[], None]] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self.watch(self._wake_read, self._woken)

    def watch(self, descriptor: Any, call: Callable[[], None], *, write: bool = False) -> None:
        self._selector.register(descriptor, selectors.EVENT_WRITE if write else selectors.EVENT_READ, call)

    def forget(self, descriptor: Any) -> None:
        """Before the descriptor is closed. Unknown ones are fine."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        def again() -> None:
            self.after(seconds, again)
            call()

        self.after(seconds, again)

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        self._signals[number] = call
        signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)

    def from_thread(self, call: Callable[[], None]) -> None:
        """The one method that other threads may use: `call` is made by the loop."""
        self._results.append(call)
        with contextlib.suppress(OSError):  # full: the loop wakes anyway
            os.write(self._wake_write.fileno(), b"\0")

    def run(self) -> None:
        """Until stop()."""
        self._running = True
        while self._running:
            for key, _ in self._selector.select(self._timeout()):
                # An earlier callback of this round may have closed it.
                if self._selector.get_map().get(key.fd) is key:
                    self._call(key.data)
            self._run_timers()

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                self._call(call)

    def _woken(self) -> None:
        try:
            numbers = self._wake_read.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number in self._signals:
                self._call(self._signals[number])
        while self._results:
            self._call(self._results.popleft())

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._on_error(error)
