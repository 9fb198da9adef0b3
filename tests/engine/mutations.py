# SPDX-License-Identifier: Apache-2.0
"""Faults that a scheduler could plausibly have, put into the engine one at a time, and which test notices each:
`python tests/engine/mutations.py [WORD...]` (all, or those with a word in their name; `make test-mutations`).

Only what a fault touches is compiled again, into an engine module of its own beside the package; the tests of the real
scheduler run over that until the first one fails. Ends with 1 if a fault is not noticed. The faults are in faults.toml;
what does not change what the engine does says why, and is shown to survive, so that a reason that ceases to hold shows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    f"tests/engine/test_{name}.py"
    for name in (
        "scenarios", "transfers", "policies", "preemption", "padding", "violations", "rings", "ladder", "stop",
        "properties", "adoption", "faults",
    )
]  # fmt: skip
SECONDS = 400  # for the tests of one fault; without any they take a quarter


def commands() -> tuple[Path, dict[str, str], str]:
    """The build folder, how each source of the engine is compiled, and how the module is linked."""
    (folder,) = (path.parent for path in (ROOT / "build").glob("cp*/build.ninja"))
    ninja = Path(sys.executable).parent / "ninja"
    lines = subprocess.run([ninja, "-t", "commands", "_engine"], cwd=folder, check=True, capture_output=True, text=True)
    *compiles, link = lines.stdout.splitlines()
    return folder, {Path(line.split()[-1]).name: line for line in compiles if " -c " in line}, link


def sources_of(folder: Path, header: str) -> list[str]:
    """The engine's sources that include it, as ninja recorded it."""
    ninja = Path(sys.executable).parent / "ninja"
    recorded = subprocess.run([ninja, "-t", "deps"], cwd=folder, check=True, capture_output=True, text=True).stdout
    return [
        Path(paths[0]).name
        for paths in (part.split("\n    ")[1:] for part in recorded.split("\n\n"))
        if any(path.endswith(f"reefd/engine/{header}") for path in paths) and "/reefd/engine/" in paths[0]
    ]


class Scratch:
    """A copy of the package and its tests, and of the engine's sources, of which one differs at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("reefd", "libreef", "tests/engine"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
            shutil.copy(ROOT / name, folder / name)
        import libreef
        import reefd

        for package in (reefd, libreef):
            for place in package.__path__:
                for module in Path(place).glob("*.so"):
                    shutil.copy(module, folder / package.__name__ / module.name)
        (self.module,) = (folder / "reefd").glob("_engine*.so")
        self.build, self.compiles, self.link = commands()

    def make(self, changed: str) -> str:
        """The module with the source or header that was changed. Returns what the compiler said against it."""
        link = re.sub(r"-o (\S*_engine\S*\.so)", f"-o {self.module}", self.link)
        for source in sources_of(self.build, changed) if changed.endswith("hpp") else [changed]:
            command = self.compiles[source]
            made = re.search(r"-o (\S+)", command)
            assert made
            mine = str(self.folder / f"{source}.o")
            command = command.replace(str(ROOT / "reefd/engine"), str(self.folder / "reefd/engine"))
            command = re.sub(r"-MD -MT \S+ -MF \S+ ", "", command).replace(f"-o {made[1]}", f"-O0 -w -o {mine}")
            result = subprocess.run(command, cwd=self.build, shell=True, capture_output=True, text=True)
            if result.returncode != 0:
                return result.stderr
            link = link.replace(f" {made[1]} ", f" {mine} ")
        link = re.sub(r"&& \S*strip\S* .*", "&& :", link)
        result = subprocess.run(link, cwd=self.build, shell=True, capture_output=True, text=True)
        return result.stderr if result.returncode != 0 else ""

    def first_failure(self) -> str:
        """The first test that fails, or nothing. Installed packages are found, but not the project's own."""
        start = (
            "import sys; sys.path[:0] = sys.argv[1:3]; import pytest, reefd._engine; "
            "assert reefd._engine.__file__.startswith(sys.argv[1]); sys.exit(pytest.main(sys.argv[3:]))"
        )
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
        command = [sys.executable, "-S", "-c", start, str(self.folder), packages, *options, *TESTS]
        try:
            result = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as stopped:
            return f"never ended: {(stopped.stdout or b'').decode().strip().splitlines()[-1:]}"
        if result.returncode == 0:
            return ""
        failed = re.search(r"^(?:FAILED|ERROR) tests/engine/(\S+)", result.stdout, re.MULTILINE)
        if failed:
            return failed[1]
        assert result.returncode < 0 or "Fatal" in result.stderr, result.stdout[-3000:] + result.stderr[-3000:]
        return f"crashes ({result.returncode})"


def main() -> int:
    wanted = sys.argv[1:]
    unexpected: list[str] = []
    faults = tomllib.loads((ROOT / "tests/engine/faults.toml").read_text())
    with tempfile.TemporaryDirectory() as name:
        scratch = Scratch(Path(name))
        for title, fault in faults.items():
            if wanted and not any(word in title for word in wanted):
                continue
            began = time.monotonic()
            path = scratch.folder / "reefd/engine" / fault["file"]
            original = path.read_text()
            times = original.count(fault["text"])
            assert times == 1, f"{title}: {path.name} says {fault['text']!r} {times} times"
            path.write_text(original.replace(fault["text"], fault["fault"]))
            problem = scratch.make(path.name)
            assert not problem, f"{title}: {problem[-2000:]}"
            found = scratch.first_failure()
            path.write_text(original)
            reason = fault.get("equivalent", "")
            said = found or (f"the same: {reason}" if reason else "NOT CAUGHT")
            unexpected += [title] if bool(found) == bool(reason) else []
            print(f"{title:44} {said} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(unexpected)} not as expected: {unexpected}" if unexpected else "all as expected", flush=True)
    return min(len(unexpected), 1)


if __name__ == "__main__":
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", tempfile.gettempdir() + "/reef-hypothesis")
    sys.exit(main())
