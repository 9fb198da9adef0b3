# SPDX-License-Identifier: Apache-2.0
"""cuda-bindings and hip-python where they are installed, what happens where they are not, and hip-python over the
stand-in driver."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reefd import devices
from reefd.gpu import bindings, compile
from reefd.gpu.compile import CompileError, compile_source
from reefd.gpu.notes import amd_resources, nvidia_resources
from reefd.gpu.simple import gemv_kernel
from reefd.gpu.source import kernel_source

from . import standin

KERNEL = gemv_kernel(1, 64, 16)
FORMS = {KERNEL.name, f"{KERNEL.name}_p"}
OPTIONS = ["--offload-arch=gfx906", "-O3", "-std=c++17", "-ffp-contract=off"]
AMD = Path("/usr/lib/x86_64-linux-gnu/libamdhip64.so.5")


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


needs_cuda_bindings = pytest.mark.skipif(
    not (has("cuda") and has("cuda.bindings") and has("nvidia")), reason="needs: pip install 'reefd[cuda]'"
)
needs_hip_python = pytest.mark.skipif(not has("hip"), reason="needs: pip install 'reefd[hip]'")
needs_hiprtc = pytest.mark.skipif(not AMD.exists(), reason="needs: apt-get install libamdhip64-5")


@needs_cuda_bindings
def test_nvrtc_through_cuda_bindings() -> None:
    code = bindings.nvrtc(kernel_source([KERNEL], "cuda"), ["--gpu-architecture=sm_90a", "--std=c++17"])
    assert code is not None and nvidia_resources(code).keys() >= FORMS
    with pytest.raises(bindings.RefusedError, match="no_such_type"):
        bindings.nvrtc("no_such_type x;", ["--gpu-architecture=sm_90a"])


def in_a_process(code: str, folder: Path) -> str:
    """hip-python opens its libraries by their unversioned names, once."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


@needs_hiprtc
def test_hiprtc_of_debians_library_where_there_is_no_clang(tmp_path: Path) -> None:
    """In a process of its own: the library brings a whole compiler with it."""
    (tmp_path / "kernel.hip").write_text(kernel_source([KERNEL], "hip"))
    code = (
        "from pathlib import Path; from reefd.gpu import bindings, compile; compile.find_clang = lambda: None; "
        "bindings._hiprtc_package = lambda source, options: None; "
        f"folder = Path({str(tmp_path)!r}); "
        "(folder / 'code').write_bytes(compile.compile_source((folder / 'kernel.hip').read_text(), 'gfx906'))\n"
        "try: compile.compile_source('no_such_type x;', 'gfx906')\n"
        "except compile.CompileError as error: print(error)"
    )
    assert "no_such_type" in in_a_process(code, tmp_path)
    found = amd_resources((tmp_path / "code").read_bytes())
    assert found.keys() >= FORMS and not any(used.scratch_bytes for used in found.values())


@needs_hip_python
@needs_hiprtc
def test_hiprtc_through_hip_python(tmp_path: Path) -> None:
    for name in ("libhiprtc.so", "libamdhip64.so"):
        (tmp_path / name).symlink_to(AMD)
    (tmp_path / "kernel.hip").write_text(kernel_source([KERNEL], "hip"))
    code = (
        "import sys; from pathlib import Path; from reefd.gpu import bindings; "
        f"code = bindings._hiprtc_package(Path({str(tmp_path / 'kernel.hip')!r}).read_text(), {OPTIONS!r}); "
        f"Path({str(tmp_path / 'code')!r}).write_bytes(code)"
    )
    in_a_process(code, tmp_path)
    assert amd_resources((tmp_path / "code").read_bytes()).keys() >= FORMS


@needs_hip_python
def test_gpus_and_their_memory_through_hip_python(tmp_path: Path) -> None:
    (tmp_path / "libamdhip64.so").symlink_to(standin.build("hip"))
    code = "import json; from reefd.gpu import bindings; print(json.dumps(bindings.discover('hip')))"
    found = [bindings.Found(*entry) for entry in json.loads(in_a_process(code, tmp_path))]
    assert len(found) == 1 and found[0].ordinal == 0 and "stand-in" in found[0].name
    assert found[0].compute_units > 0 and found[0].memory_total >= found[0].memory_free > 0


def test_without_the_packages_other_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("cuda", "cuda.bindings", "hip"):
        monkeypatch.setitem(sys.modules, package, None)  # an import fails, as where it is not installed
    assert bindings.discover("cuda") is None and bindings.discover("hip") is None
    assert bindings.nvrtc("", []) is None and bindings._hiprtc_package("", []) is None
    assert devices.others("cuda") == devices.others("cpu") == []
    monkeypatch.setattr(compile, "find_clang", lambda: None)
    monkeypatch.setattr(bindings, "hiprtc", lambda source, options: None)
    with pytest.raises(CompileError, match="apt-get install"):
        compile_source("", "gfx906")


def test_every_gpu_is_listed_and_the_first_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    two = [bindings.Found(ordinal, f"card {ordinal}", 60, 16 << 30, 15 << 30) for ordinal in range(2)]
    monkeypatch.setattr(bindings, "discover", lambda kind: two)
    (other,) = devices.others("hip")
    assert other["name"] == "card 1" and other["ordinal"] == 1 and "takes the first" in other["error"]
