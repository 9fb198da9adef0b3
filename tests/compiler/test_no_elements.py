# SPDX-License-Identifier: Apache-2.0
"""Tensors without elements: known before any request, so they are no part of one."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reefd.compiler import CompileError

from .oracle import compiled, noise, reference, run


def model(nodes: list[onnx.NodeProto], inputs: dict[str, list[int]], outputs: dict[str, list[int]]) -> onnx.ModelProto:
    def declared(tensors: dict[str, list[int]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in tensors.items()]

    graph = helper.make_graph(nodes, "g", declared(inputs), declared(outputs))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_an_input_without_elements_is_left_out() -> None:
    """The sum over nothing is zero, and what nothing is joined with stays."""
    nodes = [
        helper.make_node("ReduceSum", ["nothing"], ["zero"], keepdims=0),
        helper.make_node("Concat", ["x", "nothing"], ["joined"], axis=0),
        helper.make_node("Add", ["joined", "zero"], ["y"]),
    ]
    network = model(nodes, {"x": [2, 3], "nothing": [0, 3]}, {"y": [2, 3]})
    x, nothing = noise(2, 3, seed=1), np.zeros((0, 3), np.float32)
    ours = compiled(network)
    assert [ours.model.storage[index].name for index in ours.model.inputs] == ["x"]
    expected = reference(network, {"x": x, "nothing": nothing})["y"]
    np.testing.assert_allclose(run(ours, {"x": x})["y"], expected, rtol=1e-6)


def test_an_output_without_elements_is_left_out() -> None:
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends"], ["nothing"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    network = model(nodes, {"x": [4, 3]}, {"nothing": [0, 3], "y": [4, 3]})
    for name in ("starts", "ends"):
        network.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], [2]))
    x = noise(4, 3, seed=2)
    assert list(run(compiled(network), {"x": x})) == ["y"]


def test_a_model_of_nothing_but_nothing_is_refused() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(CompileError, match="output 'y' has no elements"):
        compiled(model(nodes, {"x": [0, 3]}, {"y": [0, 3]}))


def test_extents_beside_a_zero_are_limited_too() -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    with pytest.raises(CompileError, match="more than is allowed"):
        compiled(model(nodes, {"x": [0, 1 << 62]}, {"y": []}))
