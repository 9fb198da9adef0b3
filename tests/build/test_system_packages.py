# SPDX-License-Identifier: Apache-2.0
"""A bare machine: what `.ci/packages` asks for, as a user who may not install anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests import ROOT

PACKAGES = ROOT / ".ci/packages"

# What a minimal system has: everything that the script uses, and no tool that it looks for.
BASE = ("bash", "cat", "basename", "xargs", "id", "echo", "env")


def _system(folder: Path, *, python: str = "", tools: tuple[str, ...] = ()) -> Path:
    """A PATH with the base system, an apt-get that must not be called, and the given tools."""
    for name in BASE:
        (folder / name).symlink_to(shutil.which(name) or name)
    for name in tools:
        _script(folder / name, "exit 0")
    _script(folder / "apt-get", "echo apt-get was called >&2; exit 99")
    (folder / "id").unlink()
    _script(folder / "id", "echo 1000")
    if python:
        _script(folder / "python3", python)
    return folder


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", PACKAGES, *arguments], env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )


def test_a_bare_machine_is_told_the_line_to_type(tmp_path: Path) -> None:
    done = _run(_system(tmp_path))
    assert done.returncode == 1
    assert "sudo apt-get update && sudo apt-get install -y make g++ python3 python3-dev python3-venv" in done.stderr
    assert "apt-get was called" not in done.stderr


@pytest.mark.parametrize(
    ("lacks", "package"),
    [("Python.h", "python3-dev"), ("import venv, ensurepip", "python3-venv")],
)
def test_parts_of_python_are_found_missing(tmp_path: Path, lacks: str, package: str) -> None:
    python = f'case "$2" in *"{lacks}"*) exit 1;; esac'
    done = _run(_system(tmp_path, python=python, tools=("make", "cc", "c++")))
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(f"apt-get install -y {package}")


def test_a_complete_machine_names_its_python_and_a_missing_tool(tmp_path: Path) -> None:
    path = _system(tmp_path, python="exit 0", tools=("make", "cc", "c++"))
    assert _run(path).stdout == "python3\n"
    done = _run(path, "spin")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("install -y spin")


def test_an_old_python_counts_as_missing(tmp_path: Path) -> None:
    python = 'case "$2" in *"(3, 11)"*) exit 1;; esac'
    done = _run(_system(tmp_path, python=python, tools=("make", "cc", "c++")))
    assert done.returncode == 1
    assert "python3" in done.stderr
