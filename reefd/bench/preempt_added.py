# SPDX-License-Identifier: Apache-2.0
"""What best-effort work costs real-time requests, and real-time work the best-effort load: whole daemons, one for each
policy, in turns. `reefctl bench preempt` measures blocks and kernels as well."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from libreef import Client
from reefd.bench.beside import BE_TASK, MANIFESTS, RT_TASK, SETTLE_S, WINDOW_S
from reefd.bench.clients import Load, RealTime, Times, real_time_class
from reefd.bench.daemon import PrivateDaemon
from reefd.bench.report import Case, case

RATE = 20.0  # requests a second
ANNOUNCE_NS = 500_000
BUSY = 0.5  # of the device, by real-time work, while the load's throughput is measured


@dataclass(slots=True)
class Result:
    cases: list[Case] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)


class _Side:
    """A policy's daemon with its two clients."""

    def __init__(self, policy: str, resources: Path, stack: ExitStack) -> None:
        daemon = stack.enter_context(
            PrivateDaemon(MANIFESTS, resource_dirs=[resources], settings={"policy": policy}, suffix=f"-{policy}")
        )
        self.policy = policy
        self.load = stack.enter_context(Load(BE_TASK, daemon.socket))
        self.real_time = RealTime(stack.enter_context(Client(RT_TASK, socket=daemon.socket)))
        self.times: dict[str, Times] = {}

    def window(self, name: str, *, beside: bool, announce_ns: int = 0) -> None:
        if beside:
            self.load.go_on()
        time.sleep(SETTLE_S)
        measured = self.real_time.measure(WINDOW_S, RATE, announce_ns)
        if beside:
            self.load.pause()
        self.times.setdefault(name, Times()).add(measured)


def added(policies: Sequence[str], requests: int, resources: Path) -> Result:
    """`rt_added/<policy>`: by how much each request beside the load took longer than the median of those alone; the
    percentiles of both are in the ratios. `rt_alone` and `rt_beside` are the round trips themselves. requests: of each
    policy, half of them alone; announced ones come on top."""
    windows = max(1, round(requests / RATE / WINDOW_S / 2))
    with ExitStack() as stack:
        sides = [_Side(policy, resources, stack) for policy in policies]
        stack.enter_context(real_time_class())
        for _ in range(windows):
            for side in sides:
                side.window("alone", beside=False)
                side.window("beside", beside=True)
                if side.policy == "reef":
                    side.window("announced", beside=True, announce_ns=ANNOUNCE_NS)
    result = Result()
    for side in sides:
        _report(side, result)
    for name in ("alone", "beside"):
        # What a timer of the same thread does meanwhile: the machine's part, whatever the daemon does.
        late = [np.array(side.times[name].timer) for side in sides]
        result.cases.append(case(f"timer/{name}", np.concatenate(late)))
    return result


def _report(side: _Side, result: Result) -> None:
    trips = {name: np.array(times.round_trip) for name, times in side.times.items()}
    alone = float(np.median(trips["alone"]))
    result.cases.append(case(f"rt_added/{side.policy}", trips["beside"] - alone))
    if "announced" in trips:
        result.cases.append(case(f"rt_added/{side.policy}/announced", trips["announced"] - alone))
    for name, times in trips.items():
        result.cases.append(case(f"rt_{name}/{side.policy}", times))
    for part in ("queueing", "execution"):
        for name in ("alone", "beside"):
            result.cases.append(case(f"rt_{part}_{name}/{side.policy}", np.array(getattr(side.times[name], part))))
    for name in trips:
        if name != "alone":
            word = "" if name == "beside" else f"/{name}"
            for percent in (50, 99):
                ratio = np.percentile(trips[name], percent) / np.percentile(trips["alone"], percent)
                result.ratios[f"rt_added/{side.policy}{word} p{percent} to alone"] = round(float(ratio), 3)


def kept(policies: Sequence[str], seconds: float, resources: Path) -> Result:
    """`kept/<policy>`: best-effort answers a second while real-time work has half of the device, as a share of what the
    other half allows: the load's own rate without it, times the time in which no real-time request executed."""
    result = Result()
    with ExitStack() as stack:
        sides = [_Side(policy, resources, stack) for policy in policies]
        stack.enter_context(real_time_class())
        for side in sides:
            alone = side.real_time.measure(WINDOW_S, RATE)
            rate = BUSY / (float(np.median(alone.execution)) / 1e9)
            free = half = idle = 0.0
            for _ in range(max(1, round(seconds / WINDOW_S / 2))):
                side.load.go_on()
                time.sleep(SETTLE_S)
                free += _answers(side.load, WINDOW_S)
                side.real_time.measure(SETTLE_S, rate)
                side.load.answers()
                start = time.monotonic_ns()
                times = side.real_time.measure(WINDOW_S, rate)
                passed = time.monotonic_ns() - start
                half += side.load.answers() / (passed / 1e9)
                idle += 1 - sum(times.execution) / passed
                side.load.pause()
            windows = max(1, round(seconds / WINDOW_S / 2))
            result.ratios[f"kept/{side.policy}"] = round(half / (free * idle / windows), 3)
            result.ratios[f"kept/{side.policy} real-time share"] = round(1 - idle / windows, 3)
            result.ratios[f"kept/{side.policy} load alone, requests a second"] = round(free / windows, 1)
    return result


def _answers(load: Load, seconds: float) -> float:
    load.answers()
    start = time.monotonic()
    time.sleep(seconds)
    return load.answers() / (time.monotonic() - start)
