# SPDX-License-Identifier: Apache-2.0
"""Every kernel family compiles for the MI50's gfx906 without spilling; occupancy is known. No card is needed.

`make test` compiles what two perception networks need, in both types; `make test-gfx906` all four networks and the
layers of seven classifiers (shapes.json, written by `python -m reefd.gpu.bench.shapes`). Equal sources compile once.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reefd.gpu.compile import compile_source, find_clang
from reefd.gpu.conv import ConvShape, conv_kernels
from reefd.gpu.elementwise import binary_kernel, unary_kernel
from reefd.gpu.instance import Kernel
from reefd.gpu.lower import lower_model
from reefd.gpu.notes import amd_resources, occupancy
from reefd.gpu.rows import attention_kernel, layer_norm_kernel, softmax_kernel
from reefd.gpu.simple import depthwise_kernel, gemv_kernel, pool_kernel
from reefd.gpu.source import kernel_source
from reefd.gpu.target import TARGETS
from reefd.gpu.tiles import candidate_tiles

from .test_networks import compiled

TARGET = TARGETS["gfx906"]
needs_clang = pytest.mark.skipif(find_clang() is None, reason="needs clang and lld: apt-get install clang-15 lld-15")


def check(kernels: list[Kernel]) -> dict[str, int]:
    """Compiles each kernel once, plain and preemptible; returns the occupancy of each entry point."""
    unique = list({kernel.name: kernel for kernel in kernels}.values())
    batches = [unique[i : i + 8] for i in range(0, len(unique), 8)]
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda batch: compile_source(kernel_source(batch, "hip"), "gfx906"), batches))
    found: dict[str, int] = {}
    for batch, code in zip(batches, codes, strict=True):
        resources = amd_resources(code)
        for kernel in batch:
            for name in (kernel.name, f"{kernel.name}_p"):
                used = resources[name]
                assert used.scratch_bytes == 0, f"{name} spills {used.scratch_bytes} bytes: {dict(kernel.constants)}"
                assert kernel.shared <= 64 << 10, f"{name} needs {kernel.shared} bytes of LDS"
                found[name] = occupancy(kernel, used)
                assert found[name] >= 1
    return found


def families(dtype: str) -> list[Kernel]:
    return [
        softmax_kernel(16, 1000, dtype=dtype),
        layer_norm_kernel(128, 768, epsilon=1e-5, dtype=dtype),
        attention_kernel(1, 128, 128, 12, 64, scale=0.125, mask=(0, 0, 0), dtype=dtype),
        gemv_kernel(1, 2048, 1000, dtype=dtype, bias=True),
        pool_kernel(1, 7, 7, 2048, mode="average", kernel=(7, 7), dtype=dtype),
        binary_kernel((1, 56, 56, 64), (64,), function="mul", dtype=dtype),
        unary_kernel(784, 256, activation="gelu", dtype=dtype),
        depthwise_kernel(ConvShape(1, 56, 56, 1, 1, (3, 3), (1, 1), (1, 1, 1, 1), groups=144, dtype=dtype)),
    ]


def network(name: str, dtype: str) -> list[Kernel]:
    model = compiled(name)
    return [launch.kernel for launch in lower_model(model.model, model.weights, TARGET, dtype).launches]


@needs_clang
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_families_compile_without_spills(dtype: str) -> None:
    found = check([*families(dtype), *network("iris", dtype)[::4]])
    print(f"{dtype}: {len(found)} entry points, waves a SIMD {min(found.values())} to {max(found.values())}")


@needs_clang
@pytest.mark.gfx906
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["person_detector", "face_detector", "face_mesh", "iris"])
def test_perception_network(name: str, dtype: str) -> None:
    found = check(network(name, dtype))
    print(f"{name} {dtype}: {len(found)} entry points, waves a SIMD {sorted(found.values())}")


@needs_clang
@pytest.mark.gfx906
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", json.loads(Path(__file__).with_name("shapes.json").read_text()))
def test_classifier(name: str, dtype: str) -> None:
    kernels = []
    for fields in json.loads(Path(__file__).with_name("shapes.json").read_text())[name]:
        shape = ConvShape._make(tuple(f) if isinstance(f, list) else f for f in fields)._replace(dtype=dtype)
        kernels += conv_kernels(shape, candidate_tiles(shape, TARGET)[0])
    found = check(kernels)
    print(f"{name} {dtype}: {len(found)} entry points, waves a SIMD {min(found.values())} to {max(found.values())}")
