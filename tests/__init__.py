# SPDX-License-Identifier: Apache-2.0
"""One package, so that test modules import their helpers by full names, whichever folders a run takes together."""

import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def until_some(count: Callable[[], int], what: str = "preemptions", seconds: float = 60) -> None:
    """Does it again until it counts at least one: on a loaded machine each may come too late."""
    end = time.monotonic() + seconds
    while count() == 0:
        assert time.monotonic() < end, f"no {what} in {seconds:g} s"


def wait_until(
    condition: Callable[[], object],
    timeout: float = 60.0,
    what: str = "condition",
    *,
    meanwhile: Callable[[], object] = lambda: None,
    pause: float = 0.001,
) -> None:
    """Asks every `pause` seconds, after `meanwhile`. `timeout` guards against a hang, no more."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, what
        meanwhile()
        time.sleep(pause)
