# SPDX-License-Identifier: Apache-2.0
"""Functions written as several nodes become one kernel, and only where they are that function."""

import numpy as np
import pytest
from onnx import helper
from oracle import check, model_of, noise

ROOT_TWO = np.float32(2**0.5)


def ops(nodes: list, constants: dict[str, np.ndarray], shape: tuple[int, ...] = (2, 6, 8)) -> list[str]:
    feeds = {"x": noise(*shape)}
    result = check(model_of(nodes, feeds, ["y"], constants), feeds)
    return [kernel.attributes.get("activation", kernel.op) for kernel in result.model.kernels]  # type: ignore[misc]


@pytest.mark.parametrize("order", ["x first", "half first", "half of x"])
def test_gelu(order: str) -> None:
    nodes = [
        helper.make_node("Div", ["x", "r"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
    ]
    if order == "x first":
        nodes += [helper.make_node("Mul", ["x", "c"], ["d"]), helper.make_node("Mul", ["d", "half"], ["y"])]
    elif order == "half first":
        nodes += [helper.make_node("Mul", ["c", "half"], ["d"]), helper.make_node("Mul", ["x", "d"], ["y"])]
    else:
        nodes = [helper.make_node("Mul", ["x", "half"], ["d"]), *nodes, helper.make_node("Mul", ["d", "c"], ["y"])]
    constants = {"r": ROOT_TWO, "one": np.float32(1), "half": np.float32(0.5)}
    constants = {key: np.asarray(value) for key, value in constants.items()}
    assert ops(nodes, constants) == ["gelu"]
    assert ops(nodes, constants | {"half": np.asarray(np.float32(0.25))}) != ["gelu"]
    assert ops(nodes, constants | {"r": np.asarray(np.float32(1.5))}) != ["gelu"]


def test_silu_and_hard_swish() -> None:
    gate = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    assert ops(gate, {}) == ["silu"]
    gate[0] = helper.make_node("HardSigmoid", ["x"], ["s"], alpha=1 / 6, beta=0.5)
    assert ops(gate, {}) == ["hard_swish"]
    gate[0] = helper.make_node("HardSigmoid", ["x"], ["s"], alpha=0.25, beta=0.5)
    assert ops(gate, {}) == ["hard_sigmoid", "binary"]


def test_scale_and_offset_of_channels() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["p"]),
        helper.make_node("Add", ["b", "p"], ["q"]),
        helper.make_node("Relu", ["q"], ["y"]),
    ]
    channels = {"a": noise(6, 1, 1, seed=1), "b": noise(6, 1, 1, seed=2)}
    assert ops(nodes, channels, (2, 6, 5, 7)) == ["transpose", "relu", "transpose"]
    nodes[2] = helper.make_node("Sin", ["q"], ["y"])
    assert "affine" in ops(nodes, channels, (2, 6, 5, 7))
    nodes[2] = helper.make_node("Relu", ["q"], ["y"])
    columns = {"a": noise(8, seed=1), "b": noise(8, seed=2)}
    assert ops(nodes, columns) == ["relu"]
    mixed = {"a": noise(6, 1, seed=1), "b": noise(8, seed=2)}
    assert ops(nodes, mixed) == ["binary", "relu"]
