# SPDX-License-Identifier: Apache-2.0
"""`reefctl inspect`: figures that add up, and that equal the closed forms and the published ones."""

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from reefd import resource, zoo
from reefd.compiler import compile_to_memory
from reefd.compiler.load import from_model
from reefd.compiler.operators import supported
from reefd.inspect import cost, memory
from reefd.inspect.report import Inspection, inspect
from reefd.resource import Kernel, Storage

Command = Callable[..., subprocess.CompletedProcess[str]]


def storage(*shape: int, dtype: str = "float32", kind: str = "arena", offset: int = 0) -> Storage:
    return Storage("s", int(np.prod(shape)), dtype, kind, list(shape), offset)  # type: ignore[arg-type]


def kernel(op: str, arguments: int, **attributes: int | float | str | list[int | float]) -> Kernel:
    access = [*["read"] * (arguments - 1), "write"]
    return Kernel(op, list(range(arguments)), op, access, attributes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "shapes", "macs", "flops"),
    [
        # 56 x 56 outputs of 128 channels, each a sum over 3 x 3 x 64
        (kernel("conv2d", 3), [(1, 56, 56, 64), (128, 64, 3, 3), (1, 56, 56, 128)], 231_211_008, 462_422_016),
        (
            kernel("conv2d", 4, bias=1, activation="relu"),
            [(1, 4, 4, 8), (16, 8, 1, 1), (16,), (1, 4, 4, 16)],
            2048,
            4608,
        ),
        # groups: each output sees a quarter of the channels
        (kernel("conv2d", 3, group=4), [(1, 8, 8, 16), (32, 4, 3, 3), (1, 8, 8, 32)], 73_728, 147_456),
        (kernel("depthwise_conv2d", 3), [(1, 8, 8, 16), (16, 1, 5, 5), (1, 8, 8, 16)], 25_600, 51_200),
        (kernel("matmul", 3), [(2, 5, 7), (7, 3), (2, 5, 3)], 210, 420),
        (kernel("matmul", 3, trans_a=1), [(2, 7, 5), (7, 3), (2, 5, 3)], 210, 420),
        # q k^T and its product with v
        (kernel("attention", 4), [(1, 10, 4, 8), (1, 20, 4, 8), (1, 20, 4, 6), (1, 10, 4, 6)], 11_200, 22_400),
        (kernel("pool2d", 2, kernel=[3, 3]), [(1, 8, 8, 4), (1, 4, 4, 4)], 0, 576),
        (kernel("binary", 3), [(1, 8), (1, 8), (1, 8)], 0, 8),
        (kernel("transpose", 2), [(4, 8), (8, 4)], 0, 0),
    ],
)
def test_flops_equal_the_closed_form(found: Kernel, shapes: list[tuple[int, ...]], macs: int, flops: int) -> None:
    storages = [storage(*shape) for shape in shapes]
    assert (cost.macs(found, storages), cost.flops(found, storages)) == (macs, flops)
    assert cost.traffic(found, storages) == sum(4 * int(np.prod(shape)) for shape in shapes)


# fvcore and torchvision give 4.089, 0.300 and 1.814 GMAC for these at 224 x 224.
@pytest.mark.parametrize(("name", "gmacs"), [("resnet50", 4.089), ("mobilenet_v2", 0.300), ("resnet18", 1.814)])
def test_published_figures(name: str, gmacs: float) -> None:
    made = compile_to_memory(from_model(zoo.build(name), Path(name), {}, supported), name)
    found = inspect(resource.Resource(Path(), made.model, made.weights, ""))
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=5e-3)
    assert 2 * found.macs <= found.flops <= 2.1 * found.macs
    assert made.summary.live_bytes == found.live_bytes <= found.arena_bytes == made.model.arena_bytes


def test_live_bytes_are_of_what_is_still_needed() -> None:
    # a -> b -> c, and c also reads a: at the last kernel all three are alive; d lies where nothing is needed any more.
    tensors = [storage(64, kind="input")] + [storage(64, offset=256 * place) for place in (0, 1, 2, 1)]
    args = [[0, 1], [1, 2], [1, 2, 3], [3, 4]]
    kernels = [Kernel("k", arg, "op", ["read"] * (len(arg) - 1) + ["write"]) for arg in args]  # type: ignore[list-item]
    model = resource.ModelFile("m", tensors, kernels, [0], [], 768, version=1)
    assert memory.live_bytes(model) == [256, 512, 768, 512]


def inspected(done: subprocess.CompletedProcess[str]) -> Inspection:
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=Inspection)


def test_shares_and_sums(detector: Path, reefctl: Command) -> None:
    found = inspected(reefctl("inspect", detector, "--seconds", 0.1, "--json"))
    loaded = resource.read(detector)
    assert [kernel.name for kernel in found.kernels] == [kernel.name for kernel in loaded.model.kernels]
    assert sum(kernel.share for kernel in found.kernels) == pytest.approx(1)
    assert sum(kernel.time_us for kernel in found.kernels) == pytest.approx(found.time_us, rel=1e-3)
    assert sum(kernel.flops for kernel in found.kernels) == found.flops
    assert all(kernel.time_us > 0 and kernel.nodes for kernel in found.kernels if kernel.op == "conv2d")
    assert "workers" in found.timed_with and found.digest == loaded.digest


def test_without_a_run_there_are_no_times(detector: Path, reefctl: Command) -> None:
    found = inspected(reefctl("inspect", detector, "--no-time", "--json"))
    assert found.time_us == 0 and found.timed_with == "" and {kernel.share for kernel in found.kernels} == {0}
    table = reefctl("inspect", detector, "--no-time")
    assert table.returncode == 0 and "GMAC" in table.stdout and "alive at a time" in table.stdout


def test_the_figure_or_how_to_get_it(detector: Path, reefctl: Command, tmp_path: Path) -> None:
    done = reefctl("inspect", detector, "--no-time", "--plot", tmp_path / "figure.png")
    if importlib.util.find_spec("matplotlib") is None:
        assert done.returncode == 1 and "pip install 'reefd[plot]'" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_folder_is_refused_in_a_line(tmp_path: Path, reefctl: Command) -> None:
    done = reefctl("inspect", tmp_path)
    assert done.returncode == 1 and "SHA256SUMS" in done.stderr and "Traceback" not in done.stderr


def test_a_tensor_that_is_written_in_parts_counts_once() -> None:
    # Two kernels write the halves of what the third reads as one.
    tensors = [storage(64, kind="input"), storage(64), storage(64, offset=256), storage(128), storage(64, offset=512)]
    args = [[0, 1], [0, 2], [1, 2, 3, 4]]
    kernels = [Kernel("k", arg, "op", ["read"] * (len(arg) - 1) + ["write"]) for arg in args]  # type: ignore[list-item]
    model = resource.ModelFile("m", tensors, kernels, [0], [], 768, version=1)
    assert memory.live_bytes(model) == [256, 512, 768]
