# SPDX-License-Identifier: Apache-2.0
"""The zoo's networks have the published number of parameters, and compile to what ONNX Runtime computes."""

import numpy as np
import onnx
import pytest
from oracle import compiled, difference, reference, run

from reefd import zoo


def feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    arrays = {}
    for info in model.graph.input:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        if info.name == "attention_mask":
            arrays[info.name] = (np.arange(shape[1]) < 100).astype(np.int64)[None]
        elif info.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            arrays[info.name] = generator.integers(0, 2 if info.name == "token_type_ids" else 30_000, shape)
        else:
            arrays[info.name] = generator.normal(size=shape).astype(np.float32)
    return arrays


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_parameters(name: str) -> None:
    assert zoo.parameters(name) == zoo.NETWORKS[name][1]


def test_same_seed_same_weights() -> None:
    first, again, other = zoo.build("squeezenet"), zoo.build("squeezenet"), zoo.build("squeezenet", 2)
    assert first.SerializeToString() == again.SerializeToString() != other.SerializeToString()


@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("squeezenet", {"conv2d", "pool2d", "concat", "reduce"}),
        ("mobilenet_v2", {"conv2d", "depthwise_conv2d", "reduce", "matmul"}),
        ("densenet121", {"conv2d", "pool2d", "concat", "affine", "reduce", "matmul"}),
    ],
)
def test_network(name: str, operators: set[str]) -> None:
    model = zoo.build(name)
    result = compiled(model)
    assert {kernel.op for kernel in result.model.kernels} == operators
    assert result.summary.arena_bytes <= 1.3 * result.summary.live_bytes
    inputs = feeds(model)
    outputs, wanted = run(result, inputs), reference(model, inputs)
    for key, array in wanted.items():
        assert array.std() > 0.05 * np.abs(array).max()
        assert difference(outputs[key], array) <= 1e-4
