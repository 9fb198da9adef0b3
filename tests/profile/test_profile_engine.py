# SPDX-License-Identifier: Apache-2.0
"""Profiling runs the very blocks that are served: all of them, with the same bits, past every check point."""

import numpy as np
import pytest

from reefd import resource
from reefd._engine import CpuDevice, Model, ModelSpec
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
    assert times.shape == (len(found.model.kernels), 3)
    assert (times[:, :2] > 0).all() and not times[:, 2].any()  # the compiler emits no units
    loaded.check()  # a block that had been abandoned at a check point would have left its outputs undefined
    # The block that takes longest is a large one: it looks many times before it is done.
    blocks, checks, _ = times.T
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


@pytest.mark.parametrize("workers", [1, 3])
def test_a_unit_has_the_time_of_its_copies(workers: int) -> None:
    """x -> t, t = tanh(t) in place, t -> y: only the second kernel is saved and put back, in pieces of 64 KiB."""
    spec = ModelSpec("unit", 1 << 20)
    shape = [200_000]
    x = spec.add_storage("x", "input", "float32", shape)
    t = spec.add_storage("t", "arena", "float32", shape, 0)
    y = spec.add_storage("y", "output", "float32", shape)
    for name, arguments in (("in", [x, t]), ("tanh", [t, t]), ("out", [t, y])):
        spec.add_kernel(name, "unary", arguments, ["read", "write"], {"activation": "tanh"})
    spec.set_inputs([x])
    spec.set_outputs([y])
    device = CpuDevice(workers=workers)
    model = device.load(spec)
    assert model.snapshot_bytes == 4 * shape[0]
    data = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    expected, outputs = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    device.run(model, [data], [expected])
    times = device.block_times(model, [data], [outputs], rounds=3)
    copies = [copy_ns for _, _, copy_ns in times]
    assert copies[0] == 0 and copies[2] == 0
    # A piece is 64 KiB, whatever the unit has in all: between 1 TB/s and 10 MB/s.
    assert 64 < copies[1] < 6_500_000
    device.run(model, [data], [outputs], preemptible=True, interrupts=3)
    assert outputs.tobytes() == expected.tobytes()
