# SPDX-License-Identifier: Apache-2.0
"""Requests of a C client at a rate, spinning for each answer, and where the time of each went."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reefd.bench import child
from reefd.bench.clients import ring_client
from reefd.bench.daemon import BenchError
from reefd.bench.report import quantile

_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))


class Paced(NamedTuple):
    """Of each request, in nanoseconds (reefd/bench/ring/ring.h)."""

    whole: np.ndarray  # from before reef_submit() until the client has the completion
    submit: np.ndarray  # reef_submit() itself
    heard: np.ndarray  # from before reef_submit() until the daemon launches it
    ran: np.ndarray  # from the launch until the daemon completes it
    woke: np.ndarray  # from there until the client has the completion

    def figures(self) -> dict[str, float]:
        """Microseconds."""

        def at(values: np.ndarray, share: float) -> float:
            return round(quantile(values, share) / 1e3, 1)

        whole = {f"{name}_us": at(self.whole, share) for name, share in _QUANTILES}
        return whole | {
            f"{part}_{name}_us": at(getattr(self, part), share)
            for part in ("submit", "heard", "ran", "woke")
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }


def requests(task: str, socket: Path, seconds: float, rate: float, *, announce_s: float = 0.0, cpu: int = -1) -> Paced:
    """Requests for so many seconds at a rate; with `announce_s` announced that long ahead. BenchError: the client
    failed."""
    count = max(1, int(seconds * rate))
    command: list[str | Path] = [
        ring_client(),
        "paced",
        str(count),
        str(cpu),
        task,
        str(int(1e9 / rate)),
        str(int(announce_s * 1e9)),
    ]
    code, out = child.output(command, os.environ | {"REEF_SOCKET": str(socket)})
    if code != 0:
        raise BenchError(f"the client of {task} ended with code {code}; see its words above")
    return Paced(*np.frombuffer(out, np.int64).reshape(count, len(Paced._fields)).T)
