# SPDX-License-Identifier: Apache-2.0
"""A model of one kernel, y = sin(x), whose inputs a preloaded library can give a meaning: hang, wait, crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

SHAPE = (1, 1024)


def compile_sin(folder: Path) -> None:
    """Puts the compiled model there."""
    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["y"])],
        "sin",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)],
    )
    source = folder.parent / "sin.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    reefctl = Path(sys.executable).with_name("reefctl")
    subprocess.run([reefctl, "compile", source, "-o", folder], check=True, capture_output=True)
