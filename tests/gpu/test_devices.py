# SPDX-License-Identifier: Apache-2.0
"""reefctl devices: what is told of the CPU and of a GPU, and of one that cannot be opened."""

import pytest

from reefd import _engine, devices
from reefd.gpu.probe import probe

from .devices import GPUS, compile_cached, open_device, target


def test_the_cpu_is_always_there() -> None:
    found = devices.describe_all()
    assert found[0]["kind"] == "cpu" and found[0]["can_reset"] and found[0]["compute_units"] >= 1


@pytest.mark.parametrize("kind", GPUS)
def test_what_a_gpu_can_do_is_probed(kind: str) -> None:
    device = open_device(kind)
    assert isinstance(device, _engine.GpuDevice)
    latencies = probe(device, target(kind), 5, compile_cached, turns=2000)
    assert latencies.launch_ns > latencies.launch_call_ns > 0 and latencies.flag_ns > 0
    assert latencies.registered == (kind == "cuda")
    assert device.info["memory_total"] >= device.info["memory_free"] > 0
    assert device.info["priorities"] > 1 and device.info["can_reset"]


def test_a_gpu_that_cannot_be_opened_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str) -> None:
        raise _engine.EngineError(f"{kind}: no device")

    monkeypatch.setattr(_engine, "GpuDevice", refuse)
    assert devices.describe("cuda") == {"kind": "cuda", "error": "cuda: no device"}


def test_auto_is_the_cpu_where_no_kernel_driver_is() -> None:
    assert devices.found_device("hip") == "hip"
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:
        patched.setattr(devices, "_NODES", {"cuda": "/nonexistent", "hip": "/nonexistent"})
        assert devices.found_device("auto") == "cpu"
        patched.setattr(devices, "_NODES", {"cuda": "/nonexistent", "hip": "/dev/null"})
        assert devices.found_device("auto") == "hip"


def test_the_pieces_of_the_gate_that_the_benchmark_takes_out_are_there() -> None:
    from reefd.bench.gpu_gate import missing_pieces

    assert missing_pieces() == []
