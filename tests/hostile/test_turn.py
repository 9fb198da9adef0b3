# SPDX-License-Identifier: Apache-2.0
"""Millions of hostile entries through the real engine turn, under AddressSanitizer and UBSan (turn.cpp says how)."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from .sanitized_turn import HERE, build, clang

pytestmark = pytest.mark.hostile

ENTRIES = int(os.environ.get("REEF_ENTRIES", "10000000"))
SECONDS = int(os.environ.get("REEF_FUZZ_SECONDS", "60"))
SEED = os.environ.get("REEF_SEED", "1")


def run(*arguments: object) -> tuple[int, ...]:
    """Entries, quarantines, honest requests served."""
    result = subprocess.run([*map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "", result.stderr[-4000:]
    print(result.stdout.strip())
    return tuple(map(int, re.findall(r"\d+", result.stdout)))


def test_random_programs():
    entries, quarantines, served = run(build("turn"), ENTRIES, SEED)
    assert entries >= ENTRIES and quarantines > entries // 1000 and served > entries // 1000


def test_a_region_that_changes_between_check_and_use():
    entries, quarantines, served = run(build("turn"), ENTRIES // 10, SEED, "race")
    assert entries >= ENTRIES // 10 and quarantines > 0 and served > 0


@pytest.mark.skipif(clang() is None, reason="needs clang++ with libFuzzer: apt-get install clang")
def test_guided_by_coverage(tmp_path):
    program = build("turn_libfuzzer")
    options = [f"-max_total_time={SECONDS}", "-max_len=600", "-print_final_stats=1", f"-seed={SEED}"]
    command = [program, *options, tmp_path, HERE / "corpus"]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    executed = int(re.search(r"number_of_executed_units:\s+(\d+)", result.stderr)[1])
    edges = re.findall(r"cov: (\d+)", result.stderr)[-1]
    print(f"{executed} programs, {edges} edges")
    assert executed > 100
