# SPDX-License-Identifier: Apache-2.0
"""The perception networks, interrupted anywhere, under ThreadSanitizer and under AddressSanitizer with
UndefinedBehaviorSanitizer: device and kernels report nothing (make test-sanitize)."""

import os
import subprocess
from pathlib import Path

import pytest

from .interrupting import PERCEPTION
from .sanitized_networks import build, write

ENVIRONMENT = {
    **os.environ,
    "TSAN_OPTIONS": "exitcode=66 halt_on_error=1",
    "ASAN_OPTIONS": "exitcode=66 detect_leaks=1 detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@pytest.mark.sanitize
@pytest.mark.parametrize(("kind", "workers"), [("thread", 2), ("thread", 3), ("address", 2)])
def test_nothing_to_report(kind: str, workers: int, tmp_path: Path) -> None:
    program = build(kind)
    models = [str(write(name, tmp_path)) for name in reversed(PERCEPTION)]
    command = [str(program), str(workers), "2", *models]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=900)
    print(f"\n{kind}, {workers} workers\n{result.stdout}")
    assert result.returncode == 0 and not result.stderr, result.stderr[-6000:]
