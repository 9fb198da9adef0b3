# SPDX-License-Identifier: Apache-2.0
"""The zoo's networks have the published number of parameters, and compile to what ONNX Runtime computes."""

import numpy as np
import onnx
import pytest

from reefd import zoo
from reefd.compiler import Compiled

from .oracle import compiled, difference, reference, run


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


def compare(name: str) -> Compiled:
    """Within 1e-4 of ONNX Runtime on outputs that vary, in an arena that is hardly larger than it must be."""
    model = zoo.build(name)
    result = compiled(model)
    inputs = feeds(model)
    outputs, wanted = run(result, inputs), reference(model, inputs)
    worst = max(difference(outputs[key], array) for key, array in wanted.items())
    bound = result.summary.arena_bytes / result.summary.live_bytes
    print(f"{name:<14} {zoo.parameters(name):>12,} parameters, max|a-b| / max|b| = {worst:.1e}, arena {bound:.3f}")
    assert all(array.std() > 0.05 * np.abs(array).max() for array in wanted.values())
    assert worst <= 1e-4
    assert bound <= 1.3
    return result


@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("squeezenet", {"conv2d", "pool2d", "concat", "reduce"}),
        ("mobilenet_v2", {"conv2d", "depthwise_conv2d", "reduce", "matmul"}),
        ("densenet121", {"conv2d", "pool2d", "concat", "affine", "reduce", "matmul"}),
        ("resnet18", {"conv2d", "pool2d", "reduce", "matmul"}),
        ("inception_v3", {"conv2d", "pool2d", "concat", "reduce", "matmul"}),
        ("distilbert", {"gather", "binary", "layer_norm", "cast", "matmul", "attention"}),
    ],
)
def test_network(name: str, operators: set[str]) -> None:
    assert {kernel.op for kernel in compare(name).model.kernels} == operators


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_every_network(name: str) -> None:
    compare(name)
