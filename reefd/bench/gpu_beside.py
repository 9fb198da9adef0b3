# SPDX-License-Identifier: Apache-2.0
"""Real-time requests at a fixed rate beside best-effort loads that saturate the GPU: a whole daemon, each policy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from libreef import Client
from reefd.bench.clients import Load
from reefd.bench.daemon import BenchError, PrivateDaemon

RT_MODEL = "resnet50-float16"
FIVE = ("resnet152", "densenet121", "vgg16", "inception_v3", "bert_base")
# Name: networks, batch, real-time requests a second. A daemon and the policies beside one another for each.
LOADS: dict[str, tuple[tuple[str, ...], int, float]] = {
    "one": (FIVE[:1], 1, 200.0),
    "five": (FIVE, 1, 200.0),
    "one, batch 32": (FIVE[:1], 32, 200.0),
    "five, batch 32": (FIVE, 32, 200.0),
}
POLICIES = ("reef", "wait", "streams", "sequential")
SLOTS = 3
Attempt = Callable[[str, Callable[[], Any]], Any]


class _Times(NamedTuple):
    """Of each request, in nanoseconds. `heard`: from before the submission until the daemon launched it; `woke`: from
    the daemon's completion until the client had it. Both hold the Python client's own time."""

    whole: list[int]
    heard: list[int]
    ran: list[int]
    woke: list[int]


def _requests(client: Client, seconds: float, rate: float, announce_s: float = 0.0) -> _Times:
    """Requests at a rate, spinning for the answer; with `announce_s` announced that long ahead."""
    times = _Times([], [], [], [])
    random = np.random.default_rng(2)
    with client.loan() as loan:
        for tensor in loan.inputs.values():
            tensor[:] = random.random(tensor.array.shape, np.float32)
        start = time.monotonic_ns()
        for number in range(int(seconds * rate)):
            due = start + int((number + random.uniform(0, 0.3)) * 1e9 / rate)
            while time.monotonic_ns() < due - int(announce_s * 1e9) - 200_000:
                time.sleep(50e-6)
            if announce_s:
                while time.monotonic_ns() < due - int(announce_s * 1e9):
                    pass
                client.announce()
            while time.monotonic_ns() < due:
                pass
            before = time.monotonic_ns()
            loan.infer()
            after = time.monotonic_ns()
            done = loan.completion
            times.whole.append(after - before)
            times.heard.append(done.start_ns - before)
            times.ran.append(done.end_ns - done.start_ns)
            times.woke.append(after - done.end_ns)
    return times


def _figures(times: _Times) -> dict[str, float]:
    def at(values: list[int], quantile: float) -> float:
        return round(sorted(values)[min(len(values) - 1, int(len(values) * quantile))] / 1e3, 1)

    figures = {
        name: at(times.whole, q) for name, q in (("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("max_us", 1.0))
    }
    return figures | {
        f"{name}_{label}_us": at(values, q)
        for name, values in (("heard", times.heard), ("ran", times.ran), ("woke", times.woke))
        for label, q in (("p50", 0.5), ("p99", 0.99))
    }


def resource_of(network: str, batch: int) -> str:
    """The resource that a load of this network and batch runs, in fp16."""
    return f"{network}-float16" if batch == 1 else f"{network}-b{batch}-float16"


def one_case(folder: Path, policy: str, load: str, seconds: float) -> dict[str, Any]:
    """Alone, beside, and announced beside; best-effort answers a second without and with real-time work."""
    networks, batch, rate = LOADS[load]
    manifests = {"rt.yaml": f"version: 1\ntask: rt\nclass: rt\nmodel: {RT_MODEL}\nslots: 2\n"}
    tasks = []
    for number, network in enumerate(networks):
        name = resource_of(network, batch)
        if not (folder / name).exists():
            raise BenchError(f"{folder} has no {name}: `python -m reefd.bench.gpu_prepare` makes it")
        tasks.append(f"be{number}")
        manifests[f"be{number}.yaml"] = f"version: 1\ntask: be{number}\nclass: be\nmodel: {name}\nslots: {SLOTS}\n"
    figures: dict[str, Any] = {"networks": networks, "batch": batch, "rate": rate}
    with (
        PrivateDaemon(
            manifests, resource_dirs=[folder.resolve()], device="cuda", settings={"policy": policy}, spinning="always"
        ) as daemon,
        Client("rt", socket=daemon.socket, timeout=30.0, spin=math.inf) as client,
    ):
        _requests(client, 0.3, rate)
        figures["alone"] = _figures(_requests(client, seconds / 2, rate))
        with ExitStack() as stack:
            loads = [stack.enter_context(Load(task, daemon.socket, SLOTS)) for task in tasks]
            for each in loads:
                each.go_on()

            def rate_of_answers(over_s: float) -> float:
                return round(sum(each.answers() for each in loads) / over_s, 1)

            time.sleep(0.3)
            rate_of_answers(0.3)
            time.sleep(seconds / 2)
            figures["be_per_s_without_rt"] = rate_of_answers(seconds / 2)
            figures["beside"] = _figures(_requests(client, seconds, rate))
            figures["be_per_s"] = rate_of_answers(seconds)
            figures["announced"] = _figures(_requests(client, seconds, rate, announce_s=100e-6))
    figures["p50_ratio"] = round(figures["beside"]["p50_us"] / figures["alone"]["p50_us"], 3)
    figures["p99_ratio"] = round(figures["beside"]["p99_us"] / figures["alone"]["p99_us"], 3)
    return figures


def measure(folder: Path, seconds: float, attempt: Attempt, found: dict[str, Any]) -> None:
    """Every load under every policy, into `found` as it is known."""
    for load in LOADS:
        for policy in POLICIES:
            key = f"{load}: {policy}"
            found[key] = attempt(
                key,
                lambda policy=policy, load=load: one_case(folder, policy, load, seconds),  # type: ignore[misc]
            )
