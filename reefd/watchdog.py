# SPDX-License-Identifier: Apache-2.0
"""systemd's watchdog, fed by a thread that looks whether the daemon gets on.

WATCHDOG=1 goes out when, since the last one, the engine thread took a turn and the control plane's loop answered. A
timer would go on feeding it whatever became of the engine.
"""

from __future__ import annotations

import threading

from reefd._engine import Engine
from reefd.loop import Loop
from reefd.notify import notify

_CHECKS = 4  # in each interval


class Watchdog:
    """Starts with the service. `interval` in seconds; 0: nobody watches, and no thread is made."""

    def __init__(self, engine: Engine, loop: Loop, interval: float) -> None:
        self._engine = engine
        self._loop = loop
        self._pause = interval / _CHECKS
        self._answers = 0
        self._asked = 0
        self._turns = -1
        self._over = threading.Event()
        if interval > 0:
            self._feed()
            threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """From now on systemd's time for stopping counts."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            self._feed()

    def _feed(self) -> None:
        turns = self._engine.turns
        if turns == self._turns or self._answers < self._asked:
            return
        self._turns = turns
        notify(WATCHDOG=1)
        self._asked += 1
        self._loop.from_thread(self._answer)

    def _answer(self) -> None:
        self._answers += 1
