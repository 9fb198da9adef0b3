# SPDX-License-Identifier: Apache-2.0
"""The engine thread neither allocates nor frees once it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def counter(tmp_path_factory) -> Path:
    library = tmp_path_factory.mktemp("preload") / "count_allocations.so"
    subprocess.run(
        ["cc", "-O2", "-fPIC", "-fno-builtin", "-shared", "-o", library, HERE / "count_allocations.c"], check=True
    )
    return library


def run(counter: Path, *command: str | Path) -> str:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": str(counter)},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def test_the_engine_thread_allocates_nothing(counter):
    snapshot = json.loads(run(counter, "-m", "tests.engine.busy"))
    assert snapshot["turns"] > 1000
    assert snapshot["allocations"] == 0
    tasks = {task["class"]: task for task in snapshot["tasks"]}
    assert (
        tasks["be"]["preempted"] > 0
        and tasks["be"]["cancelled"] > 0
        and tasks["rt"]["expired"] + tasks["be"]["expired"] > 0
    )


def test_the_counter_counts(counter):
    out = run(
        counter,
        "-c",
        "import ctypes; f = ctypes.CDLL(None).reef_thread_allocations; a = f(); "
        "x = [bytes(10_000) for _ in range(100)]; print(f() - a)",
    )
    assert int(out) >= 100
