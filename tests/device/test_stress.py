# SPDX-License-Identifier: Apache-2.0
"""The CPU device under stress: the scenarios of tests/device/stress*.cpp, plain and under ThreadSanitizer."""

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT
from tests.native import build_program

HERE = ROOT / "tests/device"
ENGINE = ["crash.cpp", "model.cpp", "model_check.cpp", "operator_arguments.cpp", "restorable.cpp", "runner.cpp"]
SOURCES = [
    *sorted(HERE.glob("stress*.cpp")),
    *(path for path in sorted((ROOT / "reefd/engine").glob("cpu_*.cpp")) if path.stem not in ("cpu_isa", "cpu_start")),
    *(ROOT / "reefd/engine" / name for name in ENGINE),
    *(ROOT / "kernels/cpu" / name for name in ("unary.cpp", "binary.cpp")),
]
FLAGS = {"plain": ["-O2"], "tsan": ["-O1", "-fsanitize=thread"]}
# Scenario: rounds plain, rounds under ThreadSanitizer (0: the sanitizer has nothing to say about it).
SCENARIOS = {
    "every_kernel": (20, 4),
    "random_instants": (30, 8),
    "redone": (100, 20),
    "real_time": (200, 40),
    "generations": (60, 15),
    "retirement": (150, 30),
    "shield": (20, 3),
    "gate": (100, 20),
    "real_time_first": (100, 20),
    "stale_behind_real_time": (100, 20),
    "plain_window": (50, 10),
    "side_by_side": (100, 20),
    "splits": (60, 15),
    "uncovered": (100, 20),
    "wakes_for_kernels": (50, 10),
    "scheduling_class": (50, 0),
    "purse": (20, 0),
    "no_allocation": (50, 0),
    "units": (20, 4),
    "units_untreated": (5, 0),
    "unit_windows": (30, 8),
    "unit_shield": (4, 1),
    "same_block": (3, 1),
    "sleeping": (100, 10),
    "arming": (100, 10),
    "urged": (30, 5),
}
NEEDS_TWO = {"side_by_side", "splits", "uncovered", "wakes_for_kernels", "units_untreated"}


def build(kind: str) -> Path:
    """One program for each kind."""
    warnings = ["-Wall", "-Wextra", "-Werror"]
    flags = ["-std=c++20", "-g", *warnings, "-ffp-contract=off", "-DREEF_ISA=portable", *FLAGS[kind]]
    return build_program(ROOT / "build/tests/device" / kind / "stress", SOURCES, flags)


@pytest.fixture(scope="session")
def programs() -> Callable[[str], Path]:
    return functools.cache(build)


CASES = [
    (kind, scenario, workers, rounds)
    for kind in FLAGS
    for scenario in SCENARIOS
    for workers in ((1, 2, 3, 5) if kind == "plain" else (1, 2, 3))
    if (rounds := SCENARIOS[scenario][kind == "tsan"]) and (workers > 1 or scenario not in NEEDS_TWO)
]


@pytest.mark.parametrize(("kind", "scenario", "workers", "rounds"), CASES)
def test_scenario(programs: Callable[[str], Path], kind: str, scenario: str, workers: int, rounds: int) -> None:
    path = programs(kind)
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    for seed in (1, 2):
        command = [str(path), scenario, str(workers), str(rounds), str(seed)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        if result.returncode == 77:
            pytest.skip(result.stdout.strip())
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr[-4000:]}"
