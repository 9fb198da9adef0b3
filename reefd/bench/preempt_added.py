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
from reefd.bench.beside import BE_TASK, MANIFESTS, MODEL, RT_TASK
from reefd.bench.clients import Load, RealTime, Times, real_time_class
from reefd.bench.control import Control
from reefd.bench.daemon import PrivateDaemon
from reefd.bench.report import Case, case
from reefd.bench.samples import Samples, Side
from reefd.profile.load import OtherLoad

RATE = 20.0  # requests a second
WINDOW_S = 1.0
SETTLE_S = 0.1  # after the load was stopped or continued, not measured
ANNOUNCE_NS = 500_000
BUSY = 0.5  # of the device, by real-time work, while the load's throughput is measured


@dataclass(slots=True)
class Result:
    cases: list[Case] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)


class _Daemon:
    """A policy's daemon with its two clients."""

    def __init__(self, policy: str, resources: Path, stack: ExitStack) -> None:
        daemon = stack.enter_context(
            PrivateDaemon(MANIFESTS, resource_dirs=[resources], settings={"policy": policy}, suffix=f"-{policy}")
        )
        self.policy = policy
        self.pids: tuple[int, ...] = (daemon.pid,)
        self.load = stack.enter_context(Load(BE_TASK, daemon.socket))
        self.pids += (self.load.pid,)
        self.real_time = RealTime(stack.enter_context(Client(RT_TASK, socket=daemon.socket)))

    def window(self, name: str, control: Control, samples: Samples, *, announce_ns: int = 0) -> None:
        if name != "alone":
            self.load.go_on()
        time.sleep(SETTLE_S)
        self.load.answers()
        start = time.monotonic()
        measured = self.real_time.measure(WINDOW_S, RATE, announce_ns, control)
        side = samples.side(self.policy)
        if name != "alone":
            rate = self.load.answers() / (time.monotonic() - start)
            side.answers.setdefault(name, []).append(rate)
            self.load.pause()
        side.times.setdefault(name, Times()).add(measured)


def measure_added(policies: Sequence[str], requests: int, resources: Path, samples: Samples) -> None:
    """requests: of each policy, half of them alone; announced ones come on top. The policies take turns."""
    windows = max(1, round(requests / RATE / WINDOW_S / 2))
    with ExitStack() as stack:
        daemons = [_Daemon(policy, resources, stack) for policy in policies]
        stack.enter_context(real_time_class())
        control = Control(resources / MODEL)
        with OtherLoad(*(pid for daemon in daemons for pid in daemon.pids)) as others:
            for _ in range(windows):
                for daemon in daemons:
                    daemon.window("alone", control, samples)
                    daemon.window("beside", control, samples)
                    if daemon.policy == "reef":
                        daemon.window("announced", control, samples, announce_ns=ANNOUNCE_NS)
        samples.others.append(round(others.share, 4))


def report_added(samples: Samples) -> Result:
    """`rt_added/<policy>`: by how much each request beside the load took longer than the median of those alone; the
    percentiles of both are in the ratios. `rt_alone` and `rt_beside` are the round trips themselves, and
    `rt_<part>_<window>` what they consist of."""
    result = Result()
    sides = {policy: side for policy, side in samples.sides.items() if "alone" in side.times}
    for policy, side in sides.items():
        _report(policy, side, result)
    for name in ("alone", "beside"):
        # What the machine does meanwhile, whatever the daemon does: to a timer of the client, and to a computation.
        for part in ("timer", "control"):
            values = [np.array(getattr(side.times[name], part)) for side in sides.values() if name in side.times]
            if values:
                result.cases.append(case(f"{part}/{name}", np.concatenate(values)))
    by_name = {entry.name: entry for entry in result.cases}
    if "control/beside" in by_name:
        alone, beside = by_name["control/alone"], by_name["control/beside"]
        result.ratios["control p50 beside to alone"] = round(beside.p50_us / alone.p50_us, 3)
        result.ratios["control p99 beside to alone"] = round(beside.p99_us / alone.p99_us, 3)
    return result


def _report(policy: str, side: Side, result: Result) -> None:
    trips = {name: np.array(times.round_trip) for name, times in side.times.items()}
    alone = float(np.median(trips["alone"]))
    result.cases.append(case(f"rt_added/{policy}", trips["beside"] - alone))
    if "announced" in trips:
        result.cases.append(case(f"rt_added/{policy}/announced", trips["announced"] - alone))
    for name, times in trips.items():
        result.cases.append(case(f"rt_{name}/{policy}", times))
    for part in ("submission", "queueing", "execution", "answer"):
        for name in trips:
            result.cases.append(case(f"rt_{part}_{name}/{policy}", np.array(getattr(side.times[name], part))))
    for name in trips:
        if name != "alone":
            word = "" if name == "beside" else f"/{name}"
            rate = round(float(np.mean(side.answers[name])), 1)
            result.ratios[f"rt_added/{policy}{word} load beside, requests a second"] = rate
            for percent in (50, 99):
                ratio = np.percentile(trips[name], percent) / np.percentile(trips["alone"], percent)
                result.ratios[f"rt_added/{policy}{word} p{percent} to alone"] = round(float(ratio), 3)


def measure_kept(policies: Sequence[str], seconds: float, resources: Path, samples: Samples) -> None:
    """seconds: of each policy, half of them with real-time work on half of the device, in turns."""
    with ExitStack() as stack:
        daemons = [_Daemon(policy, resources, stack) for policy in policies]
        stack.enter_context(real_time_class())
        rates = {}
        for daemon in daemons:
            alone = daemon.real_time.measure(WINDOW_S, RATE)
            rates[daemon.policy] = BUSY / (float(np.median(alone.execution)) / 1e9)
        for _ in range(max(1, round(seconds / WINDOW_S / 2))):
            for daemon in daemons:
                found = samples.side(daemon.policy).throughput
                daemon.load.go_on()
                time.sleep(SETTLE_S)
                with OtherLoad(*daemon.pids) as others:
                    found.free.append(_answers(daemon.load, WINDOW_S))
                found.others_free.append(round(others.share, 4))
                daemon.real_time.measure(SETTLE_S, rates[daemon.policy])
                daemon.load.answers()
                with OtherLoad(*daemon.pids) as others:
                    start = time.monotonic_ns()
                    times = daemon.real_time.measure(WINDOW_S, rates[daemon.policy])
                    passed = time.monotonic_ns() - start
                found.others_beside.append(round(others.share, 4))
                found.beside.append(daemon.load.answers() / (passed / 1e9))
                found.idle.append(1 - sum(times.execution) / passed)
                daemon.load.pause()


def report_kept(samples: Samples) -> Result:
    """`kept/<policy>`: the load's answers a second while real-time work has half of the device, as a share of what the
    other half allows: its own rate without real-time work, times the time in which no real-time request executed."""
    result = Result()
    for policy, side in samples.sides.items():
        found = side.throughput
        if found.free:
            free, beside, idle = (float(np.mean(values)) for values in (found.free, found.beside, found.idle))
            result.ratios[f"kept/{policy}"] = round(beside / (free * idle), 3)
            result.ratios[f"kept/{policy} idle share"] = round(idle, 3)
            result.ratios[f"kept/{policy} load alone, requests a second"] = round(free, 1)
            result.ratios[f"kept/{policy} load beside, requests a second"] = round(beside, 1)
            for word, values in (("alone", found.others_free), ("beside", found.others_beside)):
                result.ratios[f"kept/{policy} others' share, load {word}"] = round(float(np.mean(values)), 4)
    return result


def _answers(load: Load, seconds: float) -> float:
    load.answers()
    start = time.monotonic()
    time.sleep(seconds)
    return load.answers() / (time.monotonic() - start)
