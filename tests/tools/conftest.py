# SPDX-License-Identifier: Apache-2.0
"""A compiled network for the tools that look at one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reefd.compiler import compile_model
from tests import ROOT

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resource folder."""
    folder = tmp_path_factory.mktemp("tools") / "person_detector"
    compile_model(ROOT / "resource/onnx/person_detector.onnx", folder)
    return folder


@pytest.fixture(scope="session")
def reefctl() -> Command:
    """Runs the command; what it printed and its exit code."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("reefctl")), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run
