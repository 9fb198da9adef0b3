# SPDX-License-Identifier: Apache-2.0
"""However a run is interrupted and resumed, by whatever number of workers, its outputs have the bits of an undisturbed
run: the four perception networks with real kernels, through every instruction set of this machine."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest

from reefd import _engine
from reefd.compiler import compile_to_memory
from reefd.compiler.load import load
from reefd.compiler.operators import supported
from reefd.resource import Resource
from reefd.resource.load import model_spec
from tests import ROOT, until_some

from .networks import chain

NETWORKS = ["person_detector", "face_detector", "face_mesh", "iris"]
ISAS = _engine.instruction_sets()


class Case:
    """A network with seeded inputs, and the outputs of an undisturbed run on one worker."""

    def __init__(self, name: str) -> None:
        compiled = compile_to_memory(load(ROOT / f"resource/onnx/{name}.onnx", {}, supported), name)
        self.spec = model_spec(Resource(Path(), compiled.model, compiled.weights, ""))
        storage = compiled.model.storage
        generator = np.random.default_rng(5)
        self.inputs = [generator.random(storage[i].shape, np.float32) for i in compiled.model.inputs]
        self.shapes = [storage[i].shape for i in compiled.model.outputs]
        self.kernels = len(compiled.model.kernels)
        self.known: dict[str, list[bytes]] = {}

    def outputs(self) -> list[np.ndarray]:
        """Filled with what no kernel computes, so that a block that never ran shows."""
        return [np.full(shape, np.nan, np.float32) for shape in self.shapes]

    def expected(self, isa: str) -> list[bytes]:
        if isa not in self.known:
            self.known[isa] = self.undisturbed(isa)
        return self.known[isa]

    def undisturbed(self, isa: str) -> list[bytes]:
        outputs = self.outputs()
        _engine.run_model(self.spec, self.inputs, outputs, workers=1, isa=isa)
        assert all(np.isfinite(output).all() and (np.ptp(output) > 0 or output.size == 1) for output in outputs)
        return [output.tobytes() for output in outputs]


@functools.cache
def case(name: str) -> Case:
    return Case(name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NETWORKS)
def test_number_of_workers_and_kind_of_kernel(name: str, isa: str) -> None:
    network = case(name)
    for workers in (2, 3, 5):
        device = _engine.CpuDevice(workers=workers, isa=isa)
        model = device.load(network.spec)
        for preemptible in (False, True):
            outputs = network.outputs()
            report = device.run(model, network.inputs, outputs, preemptible=preemptible)
            assert report["launches"] == 1
            assert [output.tobytes() for output in outputs] == network.expected(isa)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_interrupted_at_every_kernel(name: str, workers: int) -> None:
    network = case(name)
    device = _engine.CpuDevice(workers=workers)
    model = device.load(network.spec)

    def interrupt(kernel: int) -> int:
        outputs = network.outputs()
        report = device.run(
            model, network.inputs, outputs, preemptible=True, interrupt_at=[kernel], within_ns=40_000, seed=kernel
        )
        assert [output.tobytes() for output in outputs] == network.expected(ISAS[-1])
        return int(report["preempted"])

    until_some(lambda: sum(map(interrupt, range(network.kernels))))  # a network is over in a millisecond


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_interrupted_at_random_instants(name: str, workers: int) -> None:
    """50 runs, with up to 50 interruptions each: also while it resumes from the last one."""
    network = case(name)
    device = _engine.CpuDevice(workers=workers)
    model = device.load(network.spec)

    def interrupt(seed: int) -> int:
        outputs = network.outputs()
        report = device.run(
            model,
            network.inputs,
            outputs,
            preemptible=True,
            interrupts=1 + seed,
            within_ns=10_000 << seed % 7,
            seed=seed,
        )
        assert [output.tobytes() for output in outputs] == network.expected(ISAS[-1])
        return int(report["preempted"])

    until_some(lambda: sum(map(interrupt, range(50))))


def test_work_redone_is_at_most_a_block_of_each_worker() -> None:
    device = _engine.CpuDevice(workers=3)
    spec = chain(9, 200_000)
    model = device.load(spec)
    values, out = np.linspace(-1, 1, 200_000, dtype=np.float32), np.empty(200_000, np.float32)
    report = device.run(model, [values], [out], preemptible=True, interrupts=100, within_ns=50_000)
    statistics = device.statistics()
    assert sum(worker["blocks"] for worker in statistics) == sum(model.blocks)
    assert sum(worker["abandoned"] for worker in statistics) <= 3 * report["preempted"]


def test_workers_by_default() -> None:
    info = _engine.CpuDevice().info
    assert info["compute_units"] == len(os.sched_getaffinity(0))
    assert info["queues"] >= 5 and info["detail"].startswith(ISAS[-1]) and not info["realtime"]
    with pytest.raises(ValueError, match="more than 1024 workers"):
        _engine.CpuDevice(workers=2000)


def test_info_says_what_was_granted() -> None:
    info = _engine.CpuDevice(workers=1, realtime=True).info
    assert info["detail"].endswith("SCHED_FIFO" if info["realtime"] else "SCHED_FIFO not permitted")
