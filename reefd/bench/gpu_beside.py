# SPDX-License-Identifier: Apache-2.0
"""Real-time requests at a fixed rate beside best-effort loads that saturate the GPU: a whole daemon, each policy. The
real-time client is a program in C (reefd/bench/ring/paced.c)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from reefd.bench import paced
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


def resource_of(network: str, batch: int) -> str:
    """The resource that a load of this network and batch runs, in fp16."""
    return f"{network}-float16" if batch == 1 else f"{network}-b{batch}-float16"


def one_case(
    folder: Path,
    policy: str,
    load: str,
    seconds: float,
    *,
    model: str = RT_MODEL,
    rate: float = 0.0,
    device: Literal["cuda", "hip"] = "cuda",
) -> dict[str, Any]:
    """Alone, beside, and announced beside; best-effort answers a second without and with real-time work. `rate` 0: the
    load's."""
    networks, batch, usual_rate = LOADS[load]
    rate = rate or usual_rate
    manifests = {"rt.yaml": f"version: 1\ntask: rt\nclass: rt\nmodel: {model}\nslots: 2\n"}
    tasks = []
    for number, network in enumerate(networks):
        name = resource_of(network, batch)
        if not (folder / name).exists():
            raise BenchError(f"{folder} has no {name}: `python -m reefd.bench.gpu_prepare` makes it")
        tasks.append(f"be{number}")
        manifests[f"be{number}.yaml"] = f"version: 1\ntask: be{number}\nclass: be\nmodel: {name}\nslots: {SLOTS}\n"
    figures: dict[str, Any] = {"networks": networks, "batch": batch, "rate": rate}
    with PrivateDaemon(
        manifests, resource_dirs=[folder.resolve()], device=device, settings={"policy": policy}, spinning="always"
    ) as daemon:

        def real_time(over_s: float, announce_s: float = 0.0) -> dict[str, float]:
            return paced.requests("rt", daemon.socket, over_s, rate, announce_s=announce_s).figures()

        real_time(0.3)
        figures["alone"] = real_time(seconds / 2)
        with ExitStack() as stack:
            loads = [stack.enter_context(Load(task, daemon.socket, SLOTS)) for task in tasks]
            for each in loads:
                each.go_on()

            def answers() -> int:
                """Since the last call."""
                return sum(each.answers() for each in loads)

            def answers_per_s(meanwhile: Callable[[], Any]) -> float:
                begin = time.monotonic()
                answers()
                meanwhile()
                return round(answers() / (time.monotonic() - begin), 1)

            def beside() -> None:
                figures["beside"] = real_time(seconds)

            time.sleep(0.3)
            figures["be_per_s_without_rt"] = answers_per_s(lambda: time.sleep(seconds / 2))
            figures["be_per_s"] = answers_per_s(beside)
            figures["announced"] = real_time(seconds, announce_s=100e-6)
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
