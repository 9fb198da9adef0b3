# SPDX-License-Identifier: Apache-2.0
"""However a network is interrupted and resumed, its outputs have the bits of an undisturbed run.

The perception networks and resnet18 at every kernel index and 50 random instants. `make test-exact` takes every network
that the zoo can write at every kernel index and 1,000 instants, with one, two and three workers, and says what it did.
"""

import time
from pathlib import Path

import pytest

from .interrupting import PERCEPTION, ZOO, Bench, network, storm

WORKERS = [1, 2, 3]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.mark.parametrize("name", [*PERCEPTION, "resnet18"])
def test_interrupted_anywhere(name: str, work: Path) -> None:
    one = network(name, work)
    assert one.units == 0  # the compiler emits only what is restorable
    bench = Bench(one, 2)
    bench.every_kernel()
    bench.random_instants(50)
    bench.while_resuming()
    bench.cancelled()
    assert bench.preempted > one.kernels + 50


def test_storm(work: Path) -> None:
    """Real-time requests over two best-effort networks that run side by side."""
    counts = storm([network(name, work) for name in ("iris", "face_mesh", "face_detector")], 2, seconds=3)
    assert counts["real_time"] > 20 and counts["preempted"] > 20


@pytest.mark.exact
@pytest.mark.parametrize("name", [*PERCEPTION, *ZOO])
def test_thousand_instants(name: str, work: Path) -> None:
    began = time.monotonic()
    one = network(name, work)
    print(
        f"\n{name}: {one.kernels} kernels, {one.units} units, compiled in {time.monotonic() - began:.0f} s", flush=True
    )
    instants = 0
    for workers in WORKERS:
        bench = Bench(one, workers)
        passes = bench.every_kernel()
        indices = bench.preempted
        runs = bench.random_instants(-(-1000 // len(WORKERS)))
        instants += bench.preempted - indices
        bench.while_resuming()
        bench.cancelled()
        statistics = bench.device.statistics()
        abandoned, blocks = (sum(unit[key] for unit in statistics) for key in ("abandoned", "blocks"))
        print(
            f"  {workers} workers: stopped at each of {one.kernels} kernels in {passes} runs, {runs} runs at random "
            f"instants, {bench.preempted} preemptions in all, {abandoned} blocks abandoned of {blocks}, every bit the "
            f"same, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    assert instants >= 1000


@pytest.mark.exact
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("names", [PERCEPTION[:3], PERCEPTION[1:], ["iris", "resnet18", "mobilenet_v2"]], ids="-".join)
def test_long_storm(names: list[str], workers: int, work: Path) -> None:
    counts = storm([network(name, work) for name in names], workers, seconds=10)
    print(f"\n{' '.join(names)}, {workers} workers: {counts}", flush=True)
    assert counts["preempted"] > 50
