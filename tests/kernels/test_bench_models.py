# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench models`: one ratio for each model that was asked for, and outputs that agree."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reefd.bench import models
from reefd.bench.daemon import BenchError
from tests import ROOT


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("reefctl")),
        "bench",
        "models",
        "--json",
        "--folder",
        str(folder),
        *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_one_ratio_for_each_model(tmp_path: Path) -> None:
    done = bench(tmp_path, "--models", "iris,face_detector", "--seconds", "0.01", "--threads", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["ratios"]) == list(report["differences"]) == ["iris", "face_detector"]
    assert [case["name"] for case in report["cases"]] == [
        f"{name} {side}" for name in report["ratios"] for side in ("reefd", "onnxruntime")
    ]
    medians = {case["name"]: case["p50_us"] for case in report["cases"]}
    for name, ratio in report["ratios"].items():
        assert ratio == pytest.approx(medians[f"{name} reefd"] / medians[f"{name} onnxruntime"], abs=1e-3)
    assert report["threads"] == 2


def test_an_unknown_model_is_named(tmp_path: Path) -> None:
    done = bench(tmp_path, "--models", "iris,lenet")
    assert done.returncode == 1 and "lenet" in done.stderr and "resnet50" in done.stderr


def test_outputs_that_differ_are_no_result() -> None:
    right = {"y": np.array([1, -2], np.float32)}
    assert models._difference("m", {"y": right["y"] + np.float32(1e-5)}, right) == pytest.approx(5e-6, rel=0.1)
    for wrong in (right["y"] + np.float32(1e-3), np.array([1, np.nan], np.float32)):
        with pytest.raises(BenchError, match="m: the outputs differ"):
            models._difference("m", {"y": wrong}, right)
