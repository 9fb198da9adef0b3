# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench beside`: what a best-effort load does to real-time requests.

A person detector as a real-time task sends requests at a fixed rate. In every other second the same network runs as a
best-effort task too, from another process that always has several requests in flight, so that the device is never idle.
Seconds with and without the load alternate, so that both meet the same machine.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from libreef import Client
from reefd.bench.clients import Load, RealTime, Times, real_time_class
from reefd.bench.daemon import BenchError, PrivateDaemon
from reefd.bench.report import Case, case

MODEL = "person_detector"
RT_TASK, BE_TASK = "bench-rt", "bench-be"
WINDOW_S = 1.0
SETTLE_S = 0.2  # after the load was stopped or continued, not measured
MANIFESTS = {
    "rt.yaml": f"version: 1\ntask: {RT_TASK}\nclass: rt\nmodel: {MODEL}\nslots: 2\n",
    "be.yaml": f"version: 1\ntask: {BE_TASK}\nclass: be\nmodel: {MODEL}\nslots: 4\n",
}


def check_resources(resource_dir: Path) -> Path:
    """BenchError where the network is not compiled."""
    if not (resource_dir / MODEL / "model.json").exists():
        raise BenchError(f"there is no {MODEL} in {resource_dir}: run `make resources`, or name --resource-dir")
    return resource_dir.resolve()


def measure(requests: int, rate: float, resource_dir: Path) -> tuple[list[Case], dict[str, float], list[str]]:
    """Returns the cases `alone` and `beside`, their ratios, and notes for people."""
    resources = check_resources(resource_dir)
    pairs = max(1, round(requests / rate / WINDOW_S / 2))
    times = {"alone": Times(), "beside": Times()}
    answered = 0
    with (
        PrivateDaemon(MANIFESTS, resource_dirs=[resources]) as daemon,
        Load(BE_TASK, daemon.socket) as load,
        Client(RT_TASK, socket=daemon.socket) as client,
        real_time_class(),
    ):
        real_time = RealTime(client)
        for _ in range(pairs):
            time.sleep(SETTLE_S)
            times["alone"].add(real_time.measure(WINDOW_S, rate))
            load.go_on()
            time.sleep(SETTLE_S)
            load.answers()
            times["beside"].add(real_time.measure(WINDOW_S, rate))
            answered += load.answers()
            load.pause()
    alone, beside = (case(name, np.array(times[name].round_trip)) for name in ("alone", "beside"))
    ratios = {
        "beside/alone p50": round(beside.p50_us / alone.p50_us, 3),
        "beside/alone p99": round(beside.p99_us / alone.p99_us, 3),
        "best-effort requests a second": round(answered / (pairs * WINDOW_S), 1),
    }
    return [alone, beside], ratios, []
