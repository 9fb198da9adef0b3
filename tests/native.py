# SPDX-License-Identifier: Apache-2.0
"""Programs that tests build from the project's C++ sources, with flags of their own; what has not changed is kept."""

import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import ROOT

INCLUDES = [ROOT / path for path in ("reefd/engine", "libreef/include", "kernels/cpu")]


def build_program(program: Path, sources: Sequence[Path], flags: Sequence[str], compiler: str = "g++") -> Path:
    """`program`, with its objects beside it; a source is compiled again when it or a header of any folder is newer."""
    program.parent.mkdir(parents=True, exist_ok=True)
    folders = {*INCLUDES, *(source.parent for source in sources)}
    newest_header = max(path.stat().st_mtime for folder in folders for path in folder.glob("*.[hi]*"))
    cached = [tool] if (tool := shutil.which("ccache")) else []

    def run(*command: str | Path) -> None:
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    def compile_one(source: Path) -> Path:
        made = program.parent / f"{source.parent.name}_{source.stem}.o"
        if not made.exists() or made.stat().st_mtime < max(newest_header, source.stat().st_mtime):
            run(*cached, compiler, *flags, *(f"-I{folder}" for folder in INCLUDES), "-c", source, "-o", made)
        return made

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    if not program.exists() or program.stat().st_mtime < max(made.stat().st_mtime for made in objects):
        run(compiler, *flags, *objects, "-o", program, "-pthread")
    return program
