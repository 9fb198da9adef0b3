# SPDX-License-Identifier: Apache-2.0
"""Builds the engine's turn with sanitizers and, where clang has libFuzzer, the guided fuzzer; once for each change."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import ROOT

HERE = ROOT / "tests/hostile"
INCLUDES = [f"-I{ROOT / path}" for path in ("reefd/engine", "libreef/include", "kernels/cpu")]
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
    folder = ROOT / "build/tests/hostile" / kind
    folder.mkdir(parents=True, exist_ok=True)
    compiler, flags = "g++", SANITIZERS
    if kind == "turn_libfuzzer":
        found = clang()
        assert found is not None, "clang++ with libFuzzer is needed"
        compiler, flags = (
            found,
            ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-DREEF_LIBFUZZER"],
        )
    flags = ["-std=c++20", "-O1", "-g", *flags]
    headers = [*(ROOT / "reefd/engine").glob("*.hpp"), *(ROOT / "libreef/include").glob("*.h")]
    newest_header = max(path.stat().st_mtime for path in headers)

    def compile_one(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        if not made.exists() or made.stat().st_mtime < max(newest_header, source.stat().st_mtime):
            subprocess.run([compiler, *flags, *INCLUDES, "-c", source, "-o", made], check=True)
        return made

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, SOURCES))
    program = folder / kind
    if not program.exists() or program.stat().st_mtime < max(made.stat().st_mtime for made in objects):
        subprocess.run([compiler, *flags, *objects, "-o", program, "-pthread"], check=True)
    return program
