# SPDX-License-Identifier: Apache-2.0
"""Each kernel of a resource says which ONNX nodes' work it does."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from reefd import resource
from reefd.compiler import compile_model
from tests import ROOT

from .oracle import compiled, model_of, noise

NETWORKS = ROOT / "resource/onnx"
FREE = ("Constant", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat")  # may cost nothing


@pytest.mark.parametrize("name", ["person_detector", "face_mesh"])
def test_every_node_that_computes_is_in_a_kernel(name: str, tmp_path: Path) -> None:
    compile_model(NETWORKS / f"{name}.onnx", tmp_path / name)
    kernels = resource.read(tmp_path / name).model.kernels
    found = [node for kernel in kernels for node in kernel.nodes]
    graph = onnx.load(NETWORKS / f"{name}.onnx").graph
    named = {node.name or node.output[0]: node.op_type for node in graph.node}
    assert set(found) <= set(named)
    assert {op for node, op in named.items() if node not in found} <= set(FREE)
    fused = next(kernel for kernel in kernels if kernel.op == "conv2d")
    assert named[fused.nodes[0]] == "Conv" and len(fused.nodes) > 1


def test_what_is_folded_and_fused_is_named_with_its_kernel() -> None:
    feeds = {"x": noise(1, 4, 8, 8)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv", kernel_shape=[1, 1]),
        helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"], "norm"),
        helper.make_node("Relu", ["c"], ["d"], "relu"),
        helper.make_node("Add", ["d", "x"], ["y"], "add"),
    ]
    vectors = {name: np.abs(noise(4, seed=seed)) + 0.5 for seed, name in enumerate("sbmv")}
    built = compiled(model_of(nodes, feeds, ["y"], {"w": noise(4, 4, 1, 1, seed=9), **vectors}))
    (conv,) = (kernel for kernel in built.model.kernels if kernel.op == "conv2d")
    assert conv.nodes == ["conv", "norm", "relu", "add"]


def test_a_pattern_of_many_nodes_names_them_all() -> None:
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"], "div"),
        helper.make_node("Erf", ["a"], ["b"], "erf"),
        helper.make_node("Add", ["b", "one"], ["c"], "plus"),
        helper.make_node("Mul", ["x", "c"], ["d"], "times"),
        helper.make_node("Mul", ["d", "half"], ["y"], "half"),
    ]
    constants = {name: np.float32(value) for name, value in (("root", 2**0.5), ("one", 1), ("half", 0.5))}
    (kernel,) = compiled(model_of(nodes, {"x": noise(4, 16)}, ["y"], constants)).model.kernels
    assert kernel.op == "unary" and set(kernel.nodes) == {"div", "erf", "plus", "times", "half"}
