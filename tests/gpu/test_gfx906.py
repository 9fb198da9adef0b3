# SPDX-License-Identifier: Apache-2.0
"""Every kernel compiles for the MI50's gfx906 without spilling, and halves are multiplied in pairs. No card is needed.

`make test` compiles one kernel of each family and a few of a perception network; `make test-gfx906` every kernel of
every network: the zoo, the families of tests/compiler and the perception networks, in both types. Equal sources
compile once, ever: what was noted of them is kept in build/gfx906.
"""

import functools
import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reefd import zoo
from reefd.compiler import compile_to_memory
from reefd.compiler.load import from_model
from reefd.compiler.operators import supported
from reefd.gpu.compile import clang_command, compile_source, find_clang
from reefd.gpu.conv import ConvShape, conv_kernels
from reefd.gpu.elementwise import binary_kernel, cast_kernel, unary_kernel, where_kernel
from reefd.gpu.general import arg_reduce_kernel, batched_kernel, reduce_kernel, scan_kernel, topk_kernel
from reefd.gpu.instance import Kernel
from reefd.gpu.lower import lower_model
from reefd.gpu.moves import gather_elements_kernel, gather_kernel, gather_nd_kernel, one_hot_kernel
from reefd.gpu.notes import Resources, amd_resources
from reefd.gpu.occupancy import occupancy
from reefd.gpu.rows import attention_kernel, layer_norm_kernel, softmax_kernel
from reefd.gpu.simple import depthwise_kernel, gemv_kernel, pool_kernel
from reefd.gpu.source import kernel_source
from reefd.gpu.target import TARGETS
from reefd.gpu.tiles import candidate_tiles
from tests import ROOT
from tests.compiler import families as small_networks

from .test_networks import compiled

NAME = "gfx906"
TARGET = TARGETS[NAME]
CACHE = ROOT / "build/gfx906"
PERCEPTION = ("person_detector", "face_detector", "face_mesh", "iris")
NETWORKS = (*PERCEPTION, *small_networks.FAMILIES, *zoo.NETWORKS)
PAIRS, MIXED = "v_dot2_f32_f16", "v_fma_mix"  # two products of halves added to a float; one, with halves as they come
needs_clang = pytest.mark.skipif(find_clang() is None, reason="needs clang and lld: apt-get install clang-15 lld-15")


def cached(kernel: Kernel) -> Path:
    return CACHE / f"{hashlib.sha256(kernel_source([kernel], 'hip').encode()).hexdigest()[:32]}.json"


def noted(kernels: list[Kernel]) -> dict[str, Resources]:
    """What the compiler says of both forms of each kernel; those that it saw before are not compiled again."""
    CACHE.mkdir(parents=True, exist_ok=True)
    new = [kernel for kernel in kernels if not cached(kernel).exists()]

    def compile_batch(batch: list[Kernel]) -> None:
        found = amd_resources(compile_source(kernel_source(batch, "hip"), NAME))
        for kernel in batch:
            forms = {name: found[name] for name in (kernel.name, f"{kernel.name}_p")}
            cached(kernel).write_text(json.dumps(forms))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_batch, [new[i : i + 8] for i in range(0, len(new), 8)]))
    return {
        name: Resources(*values)
        for kernel in kernels
        for name, values in json.loads(cached(kernel).read_text()).items()
    }


def check(kernels: list[Kernel]) -> str:
    """That none of these needs scratch memory and every one fits on a compute unit; in words, how well."""
    unique = {kernel.name: kernel for kernel in kernels}
    resources = noted(list(unique.values()))
    shares = []
    for name, used in resources.items():
        kernel = unique[name.removesuffix("_p")]
        assert used.scratch_bytes == 0, f"{name} spills {used.scratch_bytes} bytes: {dict(kernel.constants)}"
        blocks, share = occupancy(NAME, kernel, used)
        assert blocks >= 1, f"{name} takes {used} and {kernel.shared} bytes of LDS: more than a compute unit has"
        shares.append(share)
    shares.sort()
    middle = shares[len(shares) // 2]
    return f"{len(shares)} entry points, occupancy {shares[0]:.0%} to {shares[-1]:.0%}, median {middle:.0%}"


def families(dtype: str) -> list[Kernel]:
    product = ConvShape(1, 14, 14, 64, 96, (3, 3), (1, 1), (1, 1, 1, 1), dtype=dtype, bias=True, activation="relu")
    return [
        *conv_kernels(product, candidate_tiles(product, TARGET)[0]),
        softmax_kernel(16, 1000, dtype=dtype),
        layer_norm_kernel(128, 768, epsilon=1e-5, dtype=dtype),
        attention_kernel(1, 128, 128, 12, 64, scale=0.125, mask=(0, 0, 0), dtype=dtype),
        gather_kernel(1, 30522, 768, 128, dtype=dtype),
        gemv_kernel(1, 2048, 1000, dtype=dtype, bias=True),
        pool_kernel(1, 7, 7, 2048, mode="average", kernel=(7, 7), dtype=dtype),
        binary_kernel((1, 56, 56, 64), (64,), function="mul", dtype=dtype),
        unary_kernel(784, 256, activation="gelu", dtype=dtype),
        depthwise_kernel(ConvShape(1, 56, 56, 1, 1, (3, 3), (1, 1), (1, 1, 1, 1), groups=144, dtype=dtype)),
        reduce_kernel((4, 128, 768), (1,), function="sum", dtype=dtype),
        batched_kernel((12, 128, 64), (12, 64, 128), dtypes=(dtype, dtype)),
        topk_kernel(16, 1000, 5, largest=True, dtype=dtype),
        scan_kernel(16, 100, 1, product=False, reverse=False, exclusive=False, dtype=dtype),
        arg_reduce_kernel(16, 100, 1, largest=True, last=False, dtype=dtype),
        gather_elements_kernel((4, 8, 16), (4, 3, 16), 1, dtype=dtype),
        gather_nd_kernel(1, 3, (3, 6), 8, dtype=dtype),
        one_hot_kernel(2, 3, 2, index="int64", dtype=dtype),
        cast_kernel(100, dtype="int64", y_dtype=dtype),
        where_kernel((4, 5, 1), (4, 1, 6), (5, 6), dtypes=(dtype, dtype), y_dtype=dtype),
        binary_kernel((4, 5), (5,), function="mod", dtype="int64"),
    ]


@functools.lru_cache(1)  # of both types; the large ones take a GiB
def network(name: str) -> tuple[list[Kernel], list[Kernel]]:
    """Its kernels in floats and in halves."""
    if name in PERCEPTION:
        made = compiled(name)
    else:
        proto = zoo.build(name) if name in zoo.NETWORKS else small_networks.build(name)
        made = compile_to_memory(from_model(proto, Path(), {}, supported), name)
    floats, halves = (
        [launch.kernel for launch in lower_model(made.model, made.weights, TARGET, dtype).launches]
        for dtype in ("float32", "float16")
    )
    return floats, halves


@needs_clang
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_families_compile_without_spills(dtype: str) -> None:
    print(dtype, check([*families(dtype), *network("iris")[dtype == "float16"][::8]]))


@needs_clang
@pytest.mark.gfx906
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, dtype: str) -> None:
    print(name, dtype, check(network(name)[dtype == "float16"]))


def instructions(kernel: Kernel) -> dict[str, list[str]]:
    """The machine's instructions of each entry point."""
    source = kernel_source([kernel], "hip")
    done = subprocess.run([*clang_command(NAME), "-S", "-", "-o", "-"], input=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    name = ""
    for line in done.stdout.splitlines():
        if line.endswith(":") or ":  " in line.split(";")[0]:
            label = line.split(":")[0]
            name = label if label.startswith(kernel.name) else name
        elif line.startswith("\t") and not line.startswith(("\t.", "\t;")) and name:
            found.setdefault(name, []).append(line.split()[0])
    return found


@needs_clang
@pytest.mark.parametrize(("kernel", "wanted"), [(0, PAIRS), (6, PAIRS), (10, MIXED)], ids=["conv", "gemv", "depthwise"])
def test_halves_are_multiplied_without_being_converted(kernel: int, wanted: str) -> None:
    """In pairs, or mixed with floats; always with sums in floats, which v_pk_fma_f16 would not keep."""
    chosen = families("float16")[kernel]
    both = instructions(chosen)
    assert set(both) == {chosen.name, f"{chosen.name}_p"}
    for name, used in both.items():
        products = sum(instruction.startswith(wanted) for instruction in used)
        assert products >= 16, f"{name}: {products} {wanted} of {len(used)} instructions"
        slow = [i for i in used if i.startswith(("v_pk_fma_f16", "v_fma_f32", "v_fmac_f32", "v_mac_f32", "v_mad_f32"))]
        assert len(slow) <= products / 4, f"{name}: {len(slow)} of {sorted(set(slow))} beside {products} {wanted}"
