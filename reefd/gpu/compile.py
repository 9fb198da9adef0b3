# SPDX-License-Identifier: Apache-2.0
"""Compiles kernel source without a GPU: NVRTC for NVIDIA, clang or hiprtc for AMD, g++ for the host."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from . import bindings
from .source import headers_dir


class CompileError(Exception):
    """The compiler refused a source, or is not there. The message says which, and what it printed."""


def target_kind(target: str) -> str:
    """cuda, hip or host: which vocabulary a target's source is written in."""
    return "cuda" if target.startswith("sm_") else "hip" if target.startswith("gfx") else target


def compile_source(source: str, target: str) -> bytes:
    """A code object: a cubin for sm_NN, an ELF for gfxNNN, a shared object for host."""
    kind = target_kind(target)
    if kind == "cuda":
        return _nvrtc(source, target)
    if kind == "hip":
        return _amd(source, target)
    return _gxx(source)


@cache
def _load_nvrtc() -> ctypes.CDLL:
    names = []
    try:
        import nvidia

        names = [
            p for root in nvidia.__path__ for p in sorted(Path(root).glob("*/lib/libnvrtc.so.1[23]"), reverse=True)
        ]
    except ImportError:
        pass
    for name in [*names, Path("libnvrtc.so.13"), Path("libnvrtc.so.12")]:
        try:
            for builtins in name.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))  # NVRTC opens it by name, from a folder the loader does not search
            return ctypes.CDLL(str(name))
        except OSError:
            continue
    raise CompileError("NVRTC was not found; install it with: pip install 'reefd[cuda]'")


def _nvrtc(source: str, target: str) -> bytes:
    options = [f"--gpu-architecture={target}", "--std=c++17", "--fmad=false"]
    try:
        if (code := bindings.nvrtc(source, options)) is not None:
            return code
    except bindings.RefusedError as error:
        raise CompileError(f"{target}: {error}") from None
    lib = _load_nvrtc()
    program = ctypes.c_void_p()
    if status := lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"reef.cu", 0, None, None):
        raise CompileError(f"nvrtcCreateProgram failed with status {status}")
    try:
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = lib.nvrtcCompileProgram(program, len(options), array)
        if status:
            log = _nvrtc_bytes(lib, program, "ProgramLog").rstrip(b"\0").decode()
            raise CompileError(f"NVRTC, {target}: status {status}\n{log}")
        return _nvrtc_bytes(lib, program, "CUBIN")
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def _nvrtc_bytes(lib: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(lib, f"nvrtcGet{what}")(program, text)
    return text.raw


def find_clang() -> str | None:
    """A clang that can target AMD GPUs: ROCm's, or Debian's."""
    for name in ("/opt/rocm/llvm/bin/clang++", "clang++-17", "clang++-15", "clang++"):
        if path := shutil.which(name):
            return path
    return None


def clang_command(target: str) -> list[str]:
    """How HIP source is compiled for an AMD GPU, without input and output. CompileError: there is no clang."""
    clang = find_clang()
    if clang is None:
        raise CompileError("clang was not found; install it with: apt-get install clang lld, or ROCm, or libamdhip64-5")
    return [
        clang,
        "-x",
        "hip",
        "--cuda-device-only",
        f"--offload-arch={target}",
        "-nogpuinc",
        "-nogpulib",
        "-O3",
        "-std=c++17",
        "--no-gpu-bundle-output",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-Wno-pass-failed",
    ]


def _amd(source: str, target: str) -> bytes:
    """By clang where there is one, else by hiprtc: the same compiler with the same options, in a library."""
    if find_clang() is None and target == "gfx906":
        try:
            options = [f"--offload-arch={target}", "-O3", "-std=c++17", "-ffp-contract=off", "-fno-math-errno"]
            if (code := bindings.hiprtc(source, options)) is not None:
                return code
        except bindings.RefusedError as error:
            raise CompileError(f"{target}: {error}") from None
    return _run(clang_command(target), source, ".hip", target)


# Each object calls its own inline functions: those of another may belong to another runtime.
_GXX = ["g++", "-std=c++20", "-shared", "-fPIC", "-march=native", "-ffp-contract=off", "-Wl,-Bsymbolic"]


def _gxx(source: str) -> bytes:
    return _run([*_GXX, "-O1", "-w", "-DREEF_HOST"], source, ".cpp", "host")


def compile_host_runtime(namespace: str = "reef_host") -> bytes:
    """The shared object that kernels compiled for the host need; load it first, with its symbols global.

    Symbols of one name are shared by a whole process: two runtimes in one process need two namespaces. Kernels find
    the one whose name stands in place of reef_host in their source.
    """
    folder = headers_dir() / "host"
    return _run(
        [
            *_GXX,
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-I{folder}",
            f"-Dreef_host={namespace}",
            f"-Dreef_host_launch={namespace}_launch",
            f"-Dreef_host_interrupt={namespace}_interrupt",
        ],
        (folder / "fibers.cpp").read_text(),
        ".cpp",
        "host",
    )


def _run(command: list[str], source: str, suffix: str, target: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="reef-compile-") as folder:
        text, out = Path(folder, f"kernels{suffix}"), Path(folder, "kernels.o")
        text.write_text(source)
        # clang leaves an empty folder among its temporary files.
        own = os.environ | {"TMPDIR": folder}
        command = [*command, str(text), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, env=own, check=False)
        if done.returncode:
            raise CompileError(f"{Path(command[0]).name}, {target}: exit code {done.returncode}\n{done.stderr}")
        return out.read_bytes()
