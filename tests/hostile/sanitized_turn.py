# SPDX-License-Identifier: Apache-2.0
"""Builds the engine's turn with sanitizers and, where clang has libFuzzer, the guided fuzzer; once for each change."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests import ROOT
from tests.native import build_program

HERE = ROOT / "tests/hostile"
# All of the engine but for its devices with kernels and drivers, and what binds it to Python.
LEFT_OUT = ("module", "cpu_", "gpu_", "driver", "engine", "runner", "thread")
ENGINE = [path for path in sorted((ROOT / "reefd/engine").glob("*.cpp")) if not path.stem.startswith(LEFT_OUT)]
SOURCES = [*ENGINE, HERE / "turn.cpp"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def clang() -> str | None:
    """A clang++ that can link libFuzzer."""
    for name in ("clang++", *(f"clang++-{version}" for version in range(20, 13, -1))):
        if shutil.which(name):
            probe = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'
            command = [name, "-fsanitize=fuzzer", "-x", "c++", "-", "-o", "/dev/null"]
            if subprocess.run(command, input=probe, text=True, capture_output=True).returncode == 0:
                return name
    return None


def build(kind: str) -> Path:
    """`turn` (g++) or `turn_libfuzzer` (clang++)."""
    compiler, flags = "g++", SANITIZERS
    if kind == "turn_libfuzzer":
        found = clang()
        assert found is not None, "clang++ with libFuzzer is needed"
        compiler = found
        flags = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-DREEF_LIBFUZZER"]
    program = ROOT / "build/tests/hostile" / kind / kind
    return build_program(program, SOURCES, ["-std=c++20", "-O1", "-g", *flags], compiler)
