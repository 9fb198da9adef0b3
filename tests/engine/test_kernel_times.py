# SPDX-License-Identifier: Apache-2.0
"""What a part of the device takes teaches nothing of the whole (tests/engine/learned_times.cpp)."""

import subprocess
from pathlib import Path

from tests import ROOT
from tests.native import build_program

ENGINE = ROOT / "reefd/engine"


def test_windows_on_a_part_of_the_device_leave_the_times_of_the_whole_alone() -> None:
    sources = [Path(__file__).with_name("learned_times.cpp"), ENGINE / "kernel_times.cpp"]
    program = build_program(
        ROOT / "build/kernel-times/kernel_times", sources, ["-std=c++20", "-O1", "-Wall", "-Werror"]
    )
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    found = {when: (int(whole), int(part)) for when, whole, part in map(str.split, lines)}
    # 528 blocks are 4 rounds on 132 units and 33 on 16, by one block a unit; of four they are one and 9.
    assert found["guess"] == (250_000, 250_000 * 33 // 4)
    assert found["whole"] == (10_000, 82_500)
    whole, part = found["part"]
    assert whole == 10_000 and abs(part - 90_000) < 500
    assert found["again"] == (10_000, part)
    assert found["nothing"] == (10_000, 82_500 // 64), "never nothing"
    assert found["ages"] == (10_000, 82_500 * 64), "and never for ever"
    # What was never seen on the whole device is known by its part, until it is.
    assert abs(found["first"][0] - 10_909) < 10
