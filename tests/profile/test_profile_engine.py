# SPDX-License-Identifier: Apache-2.0
"""Profiling runs the very blocks that are served: all of them, with the same bits, past every check point."""

import numpy as np
import pytest

from reefd import resource
from reefd._engine import CpuDevice, Model
from reefd.compiler import compile_model
from reefd.resource.load import model_spec
from tests import ROOT

NETWORK = ROOT / "resource/onnx/person_detector.onnx"


class Loaded:
    """A network on a device, and what it answers when it is run as usual."""

    def __init__(self, found: resource.Resource, workers: int) -> None:
        storages = found.model.storage
        random = np.random.default_rng(3)
        self.device = CpuDevice(workers=workers)
        self.model: Model = self.device.load(model_spec(found))
        self.inputs = [random.standard_normal(storages[i].shape, np.float32) for i in found.model.inputs]
        self.expected, self.outputs = (
            [np.zeros(storages[i].shape, storages[i].stype) for i in found.model.outputs] for _ in range(2)
        )
        self.device.run(self.model, self.inputs, self.expected)
        assert all(array.any() for array in self.expected)

    def check(self) -> None:
        assert [a.tobytes() for a in self.outputs] == [a.tobytes() for a in self.expected]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> resource.Resource:
    folder = tmp_path_factory.mktemp("profile") / "person_detector"
    compile_model(NETWORK, folder)
    return resource.read(folder)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_kernel_times_are_of_whole_runs(found: resource.Resource, workers: int, rounds: int) -> None:
    loaded = Loaded(found, workers)
    times = np.array(loaded.device.kernel_times(loaded.model, loaded.inputs, loaded.outputs, rounds=rounds))
    assert times.shape == (rounds, len(found.model.kernels))
    assert (times > 0).all() and (times < 10**10).all()
    loaded.check()


@pytest.mark.parametrize("workers", [1, 3])
def test_block_times_pass_every_check_point(found: resource.Resource, workers: int) -> None:
    loaded = Loaded(found, workers)
    times = np.array(loaded.device.block_times(loaded.model, loaded.inputs, loaded.outputs, rounds=4))
    assert times.shape == (len(found.model.kernels), 2)
    assert (times > 0).all()
    loaded.check()  # a block that had been abandoned at a check point would have left its outputs undefined
    # The block that takes longest is a large one: it looks many times before it is done.
    blocks, checks = times.T
    assert checks[blocks.argmax()] < blocks.max() / 2


def test_the_device_serves_as_before_afterwards(found: resource.Resource) -> None:
    loaded = Loaded(found, 2)
    loaded.device.kernel_times(loaded.model, loaded.inputs, loaded.outputs, rounds=2)
    loaded.device.block_times(loaded.model, loaded.inputs, loaded.outputs, rounds=1)
    for preemptible in (False, True):
        report = loaded.device.run(
            loaded.model, loaded.inputs, loaded.outputs, preemptible=preemptible, interrupts=3 * preemptible
        )
        assert report["launches"] >= 1
        loaded.check()
