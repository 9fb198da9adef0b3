# SPDX-License-Identifier: Apache-2.0
"""reefctl compile and reefctl run, as a user types them."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests import ROOT

from .oracle import difference, reference
from .test_networks import picture

import onnx  # isort: skip


def reefctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from reefd.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_compile_and_run(tmp_path: Path) -> None:
    source = ROOT / "resource/onnx/iris.onnx"
    done = reefctl("compile", source, "-o", tmp_path / "iris")
    assert done.returncode == 0, done.stderr
    assert "87 kernels" in done.stdout and "weights" in done.stdout
    again = reefctl("compile", source, "-o", tmp_path / "iris", "--if-stale")
    assert again.returncode == 0 and "up to date" in again.stdout
    np.savez(tmp_path / "x.npz", image=picture("iris"))
    wanted = reference(onnx.load(source), {"image": picture("iris")})
    for options in ((), ("--preemptible", "--workers", 2)):
        done = reefctl(
            "run", tmp_path / "iris", "--inputs", tmp_path / "x.npz", "--outputs", tmp_path / "y.npz", *options
        )
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "y.npz") as outputs:
            assert sorted(outputs.files) == sorted(wanted)
            assert all(difference(outputs[name], wanted[name]) < 1e-5 for name in wanted)


def test_mistakes_end_in_one_line_and_exit_code_1(tmp_path: Path) -> None:
    source = ROOT / "resource/onnx/iris.onnx"
    assert reefctl("compile", source, "-o", tmp_path / "iris", "--quiet").stdout == ""
    (tmp_path / "text").write_text("no model")
    np.savez(tmp_path / "other.npz", picture=np.zeros(3, np.float32))
    np.savez(tmp_path / "shape.npz", image=np.zeros((1, 3, 64, 63), np.float32))
    np.savez(tmp_path / "pickle.npz", image=np.array([{}], object))
    ends = ("--outputs", tmp_path / "y.npz")
    for arguments, said in (
        (("compile", tmp_path / "nothing.onnx", "-o", tmp_path / "r"), "No such file"),
        (("compile", tmp_path / "text", "-o", tmp_path / "r"), "not an ONNX file"),
        (("compile", source, "-o", tmp_path), "not a resource folder"),
        (("compile", source, "-o", tmp_path / "r", "--shape", "image:3"), "expected name=1x3x224x224"),
        (("compile", source, "-o", tmp_path / "r", "--shape", "image=1x3x32x32"), "--shape says 1x3x32x32"),
        (
            ("compile", source, "-o", tmp_path / "r", "--target", "cpu,tpu"),
            "unknown target 'tpu'; there are: cpu, cuda",
        ),
        (("compile", source, "-o", tmp_path / ("r" * 64)), "a name has 1 to 63 bytes"),
        (("run", tmp_path, "--inputs", tmp_path / "other.npz", *ends), "SHA256SUMS: No such file"),
        (("run", tmp_path / "iris", "--inputs", tmp_path / "none.npz", *ends), "No such file"),
        (("run", tmp_path / "iris", "--inputs", tmp_path / "text", *ends), "text"),
        (("run", tmp_path / "iris", "--inputs", tmp_path / "other.npz", *ends), "input 'image' is missing"),
        (("run", tmp_path / "iris", "--inputs", tmp_path / "shape.npz", *ends), "the model wants float32"),
        (("run", tmp_path / "iris", "--inputs", tmp_path / "pickle.npz", *ends), "allow_pickle"),
    ):
        done = reefctl(*arguments)
        assert done.returncode == 1 and said in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists() and not (tmp_path / "y.npz").exists()
