# SPDX-License-Identifier: Apache-2.0
"""What a benchmark of whole daemons measured, in a file: a long run can be made in parts, whose samples add up."""

from __future__ import annotations

from pathlib import Path

import msgspec

from reefd.bench.clients import Times
from reefd.bench.daemon import BenchError


class Throughput(msgspec.Struct, forbid_unknown_fields=True):
    """Of the best-effort load, one value for each pair of windows, the second of which has real-time work beside."""

    free: list[float] = []  # answers a second without real-time work
    beside: list[float] = []  # with it
    idle: list[float] = []  # the share of that window in which no real-time request executed
    others_free: list[float] = []  # the share of the machine that anything else used in the first
    others_beside: list[float] = []  # and in the second


class Side(msgspec.Struct, forbid_unknown_fields=True):
    """One policy's daemon."""

    times: dict[str, Times] = {}  # by the kind of window
    answers: dict[str, list[float]] = {}  # of the load, a second, in each window of that kind
    throughput: Throughput = msgspec.field(default_factory=Throughput)


class Samples(msgspec.Struct, forbid_unknown_fields=True):
    """Of all runs so far. Shares of the machine's time in each: stolen by the hypervisor, used by other programs while
    whole daemons were measured (what is stolen included)."""

    stolen: list[float] = []
    others: list[float] = []
    sides: dict[str, Side] = {}

    def side(self, policy: str) -> Side:
        return self.sides.setdefault(policy, Side())


def read(path: Path | None) -> Samples:
    """Empty where there is no such file yet. BenchError: it is something else."""
    if path is None or not path.exists():
        return Samples()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Samples)
    except (OSError, msgspec.DecodeError) as error:
        raise BenchError(f"{path}: these are no samples of this benchmark ({error}); name another file") from error


def write(path: Path, samples: Samples) -> None:
    path.write_bytes(msgspec.json.encode(samples))
