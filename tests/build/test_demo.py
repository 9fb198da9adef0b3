# SPDX-License-Identifier: Apache-2.0
"""`make demo`, shortened: what it reports on the real picture, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from tests import ROOT

DEMO = ROOT / "libreef/examples/demo.py"
RESULTS = ROOT / "build/demo"


@pytest.fixture(autouse=True)
def _built() -> None:
    if not (ROOT / "build/c/libreef/examples/obstacle").exists():
        pytest.skip("needs the C examples: make c")
    if not (ROOT / "build/resource/iris/model.json").exists():
        pytest.skip("needs the compiled networks: make resources")


def _left(pid: int) -> list[str]:
    """Shared memory of the demo with this process id, and processes of its group."""
    objects = [path.name for path in Path("/dev/shm").glob(f"reef.demo-{pid}.*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            group = int((process / "stat").read_text().rpartition(")")[2].split()[2])
        except (OSError, IndexError):
            continue
        if group == pid:
            objects.append(f"process {process.name}")
    return objects


def test_the_demo_finds_the_person_and_the_face() -> None:
    with subprocess.Popen(
        [sys.executable, DEMO, "--seconds", "2", "--alone", "1"], start_new_session=True
    ) as demo:
        assert demo.wait(120) == 0
    assert _left(demo.pid) == []

    report = json.loads((RESULTS / "report.json").read_text())
    obstacle, fatigue = report["obstacle"], report["fatigue"]
    assert obstacle["score"] == pytest.approx(0.813, abs=0.005)
    assert obstacle["center"] == pytest.approx([214, 185], abs=1.5)
    assert (obstacle["beside"]["frames"], obstacle["alone"]["frames"]) == (40, 20)
    for phase in ("alone", "beside"):
        assert 0 < obstacle[phase]["p50_ms"] <= obstacle[phase]["p99_ms"] <= obstacle[phase]["max_ms"]
    assert obstacle["missed"] == obstacle["alone"]["missed"] + obstacle["beside"]["missed"]
    assert fatigue["face_score"] == pytest.approx(0.922, abs=0.005)
    assert fatigue["face_center"] == pytest.approx([227, 130], abs=1.5)
    assert fatigue["ear"] == pytest.approx([0.324, 0.322], abs=0.01)
    assert fatigue["fps"] > 0
    for name in ("demo", "obstacle", "fatigue-open"):
        with Image.open(RESULTS / f"{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 1000, f"{name}.png is empty"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_stopped_leaves_nothing(how: signal.Signals) -> None:
    answers = RESULTS / "beside.jsonl"
    answers.unlink(missing_ok=True)  # of an earlier demo
    with subprocess.Popen(
        [sys.executable, DEMO], start_new_session=True, stderr=subprocess.DEVNULL
    ) as demo:
        end = time.monotonic() + 60
        while not answers.exists() or answers.stat().st_size == 0:
            assert demo.poll() is None, "the demo ended early"
            assert time.monotonic() < end, "obstacle answered nothing"
            time.sleep(0.05)
        os.killpg(demo.pid, how) if how == signal.SIGINT else demo.send_signal(how)  # Ctrl-C reaches everybody
        assert demo.wait(30) != 0
        end = time.monotonic() + 15  # after SIGKILL the others notice by themselves
        while _left(demo.pid) and time.monotonic() < end:
            time.sleep(0.1)
    assert _left(demo.pid) == []
