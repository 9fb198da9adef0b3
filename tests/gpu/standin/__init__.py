# SPDX-License-Identifier: Apache-2.0
"""Builds the stand-in drivers and loads them into this process, where the engine then finds them by their names."""

import ctypes
import functools
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SONAMES = {"cuda": "libcuda.so.1", "hip": "libamdhip64.so.7"}


def build(kind: str) -> Path:
    """The stand-in for `cuda` or `hip`; made again when its sources are newer."""
    sources = [HERE / "driver.cpp", ROOT / "kernels/gpu/host/fibers.cpp"]
    headers = [HERE / "names.hpp", ROOT / "kernels/gpu/host/fibers.hpp"]
    made = ROOT / "build/standin" / kind / SONAMES[kind]
    newest = max(path.stat().st_mtime for path in (*sources, *headers))
    if not made.exists() or made.stat().st_mtime < newest:
        made.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-std=c++20", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-march=native"]
        flags += ["-ffp-contract=off", f"-DREEF_STANDIN_{kind.upper()}", f"-Wl,-soname,{SONAMES[kind]}"]
        subprocess.run(["g++", *flags, *map(str, sources), "-o", str(made), "-pthread", "-ldl"], check=True)
    return made


@functools.cache
def load(kind: str) -> ctypes.CDLL:
    """From now on this process finds the stand-in under the driver's name."""
    return ctypes.CDLL(str(build(kind)))
