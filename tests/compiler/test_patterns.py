# SPDX-License-Identifier: Apache-2.0
"""Functions written as several nodes become one kernel, and only where they are that function."""

import collections
import json

import numpy as np
import pytest
from onnx import helper

from .oracle import check, model_of, noise

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


def scalars(**values: float) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def nodes(*lines: str) -> list:
    """'Mul x s -> y alpha=0.5'"""
    made = []
    for line in lines:
        left, right = line.split(" -> ")
        op, *operands = left.split()
        result, *rest = right.split()
        attributes = {key: json.loads(value) for key, value in (item.split("=") for item in rest)}
        made.append(helper.make_node(op, operands, [result], **attributes))
    return made


TANH = ["Mul u k -> v", "Tanh v -> w", "Add w one -> g"]
FORMS = {
    "silu": (["Sigmoid x -> s", "Mul x s -> y"], {}),
    "silu by exp": (["Neg x -> n", "Exp n -> e", "Add e one -> p", "Div x p -> y"], {"one": 1}),
    "hard_swish": (["HardSigmoid x -> s alpha=0.16666667 beta=0.5", "Mul s x -> y"], {}),
    "hard_swish by clip": (
        ["Add x three -> a", "Clip a zero six -> c", "Mul x c -> m", "Div m six -> y"],
        {"three": 3, "zero": 0, "six": 6},
    ),
    "hard_swish by relu6": (
        ["Add three x -> a", "Clip a zero six -> c", "Mul c sixth -> d", "Mul d x -> y"],
        {"three": 3, "zero": 0, "six": 6, "sixth": 1 / 6},
    ),
    "hard_sigmoid": (
        ["Add x three -> a", "Clip a zero six -> c", "Div c six -> y"], {"three": 3, "zero": 0, "six": 6}
    ),
    "gelu_tanh": (
        ["Pow x three -> c", "Mul c small -> d", "Add x d -> u", *TANH, "Mul half x -> h", "Mul h g -> y"],
        {"three": 3, "small": 0.044715, "k": 0.7978845608, "one": 1, "half": 0.5},
    ),
    "gelu_tanh by squares": (
        ["Mul x x -> q", "Mul q small -> d", "Add d one -> e", "Mul x e -> u", *TANH, "Mul g half -> h",
         "Mul h x -> y"],
        {"small": 0.044715, "k": 0.7978845608, "one": 1, "half": 0.5},
    ),
    "mish": (["Softplus x -> s", "Tanh s -> t", "Mul x t -> y"], {}),
    "leaky_relu": (["Mul x tenth -> t", "Max x t -> y"], {"tenth": 0.1}),
    "softsign": (["Abs x -> a", "Add a one -> p", "Div x p -> y"], {"one": 1}),
    "sigmoid": (["Neg x -> n", "Exp n -> e", "Add one e -> p", "Reciprocal p -> y"], {"one": 1}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_activation(form: str) -> None:
    lines, constants = FORMS[form]
    assert ops(nodes(*lines), scalars(**constants)) == [form.split()[0]]


@pytest.mark.parametrize(
    ("form", "constant", "value"),
    [("hard_swish by clip", "three", 2.9), ("gelu_tanh", "small", 0.04), ("gelu_tanh", "half", 0.51),
     ("leaky_relu", "tenth", 1.1), ("silu by exp", "one", 1.01), ("hard_sigmoid", "six", 6.01)],
)  # fmt: skip
def test_what_is_nearly_an_activation_is_none(form: str, constant: str, value: float) -> None:
    lines, constants = FORMS[form]
    assert ops(nodes(*lines), scalars(**constants, **{}) | scalars(**{constant: value})) != [form.split()[0]]


def test_a_part_that_something_else_reads_stays() -> None:
    gate = nodes("Sigmoid x -> s", "Mul x s -> m", "Add m s -> y")
    assert sorted(ops(gate, {})) == ["binary", "sigmoid", "silu"]


MOMENTS = ["ReduceMean x -> m axes=[-1]", "Sub x m -> d"]
VARIANCE = ["ReduceMean q -> v axes=[-1]", "Add v eps -> e", "Sqrt e -> r"]
END = ["Mul n scale -> g", "Add g bias -> y"]
NORMS = {
    "pytorch": [*MOMENTS, "Pow d two -> q", *VARIANCE, "Div d r -> n", *END],
    "by square": [*MOMENTS, "Mul d d -> q", *VARIANCE, "Div d r -> n", "Mul scale n -> g", "Add bias g -> y"],
    "twice": [*MOMENTS, "Sub x m -> d2", "Pow d2 two -> q", *VARIANCE, "Div d r -> n", *END],
    "by reciprocal": [*MOMENTS, "Mul d d -> q", *VARIANCE, "Reciprocal r -> i", "Mul d i -> n", *END],
    "tensorflow": [
        *MOMENTS, "Mul d d -> q", *VARIANCE, "Reciprocal r -> i", "Mul i scale -> f", "Mul x f -> a", "Mul m f -> b",
        "Sub bias b -> c", "Add a c -> y",
    ],
    "plain": [*MOMENTS, "Mul d d -> q", *VARIANCE, "Div d r -> y"],
    "root mean square": ["Pow x two -> q", *VARIANCE, "Div x r -> n", "Mul n scale -> y"],
    "root mean square by reciprocal": [
        "Mul x x -> q", *VARIANCE, "Reciprocal r -> i", "Mul x i -> n", "Mul n scale -> y"
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", NORMS)
def test_layer_norm(form: str) -> None:
    constants = scalars(two=2, eps=1e-5) | {"scale": noise(24, seed=1), "bias": noise(24, seed=2)}
    assert ops(nodes(*NORMS[form]), constants, (2, 5, 24)) == ["layer_norm"]
    wrong = constants | scalars(two=3, eps=1e-5)
    if any("two" in line for line in NORMS[form]):
        assert "layer_norm" not in ops(nodes(*[line.replace("Sqrt", "Abs") for line in NORMS[form]]), wrong, (2, 5, 24))


def attention(
    heads: int = 3, length: int = 10, keys: int = 14, each: int = 8, scale: str = "scores", mask: str = "",
    key: str = "once", merged: bool = False,
) -> tuple[list, dict[str, np.ndarray], dict[str, np.ndarray]]:  # fmt: skip
    """Attention of one sequence to another, as exporters write it; feeds and constants with it."""
    width = heads * each
    feeds = {"x": noise(2, length, width), "z": noise(2, keys, width, seed=1)}
    constants = scalars(s=each**-0.5, r=each**-0.25, d=each**0.5, fill=float(np.finfo(np.float32).min)) | {
        name: noise(width, width, seed=2 + place) / np.float32(width**0.5) for place, name in enumerate("QKV")
    }
    lead = [2 * heads] if merged else [2, heads]
    constants |= {
        "lshape": np.array([2, length, heads, each]), "sshape": np.array([2, keys, heads, each]),
        "lflat": np.array([*lead, length, each]), "sflat": np.array([*lead, keys, each]),
        "lback": np.array([2, heads, length, each]), "out": np.array([2, length, width]),
    }  # fmt: skip
    lines = [
        "MatMul x Q -> q0", "Reshape q0 lshape -> q1", "Transpose q1 -> q2 perm=[0,2,1,3]", "Reshape q2 lflat -> q3",
        "MatMul z K -> k0", "Reshape k0 sshape -> k1",
        "MatMul z V -> v0", "Reshape v0 sshape -> v1", "Transpose v1 -> v2 perm=[0,2,1,3]", "Reshape v2 sflat -> v3",
    ]  # fmt: skip
    last = "perm=[0,2,1]" if merged else "perm=[0,1,3,2]"
    if key == "once" and not merged:
        lines += ["Transpose k1 -> k4 perm=[0,2,3,1]"]
    else:
        lines += ["Transpose k1 -> k2 perm=[0,2,1,3]", "Reshape k2 sflat -> k3", f"Transpose k3 -> k4 {last}"]
    lines += {
        "scores": ["MatMul q3 k4 -> p0", "Mul p0 s -> p1"],
        "divided": ["MatMul q3 k4 -> p0", "Div p0 d -> p1"],
        "query": ["Mul q3 s -> q4", "MatMul q4 k4 -> p1"],
        "both": ["Mul q3 r -> q4", "Mul k4 r -> k5", "MatMul q4 k5 -> p1"],
    }[scale]  # fmt: skip
    if mask == "where":
        feeds["hide"] = noise(2, 1, 1, keys, dtype="bool")
        feeds["hide"][..., 0] = False
        lines += ["Where hide fill p1 -> p2"]
    elif mask:
        feeds["m"] = {"keys": noise(2, 1, 1, keys), "pairs": noise(length, keys), "all": noise(2, heads, length, keys)}[
            mask
        ]
        if merged:
            feeds["m"] = feeds["m"].reshape(-1, *feeds["m"].shape[-2:]) if mask == "all" else noise(1, 1, keys)
        lines += ["Add p1 m -> p2"]
    else:
        lines += ["Identity p1 -> p2"]
    lines += [
        "Softmax p2 -> w axis=-1",
        "MatMul w v3 -> o0",
        "Reshape o0 lback -> o1",
        "Transpose o1 -> o2 perm=[0,2,1,3]",
    ]
    return nodes(*lines, "Reshape o2 out -> y"), feeds, constants


@pytest.mark.parametrize(
    "form",
    [
        {}, {"scale": "divided", "mask": "keys"}, {"scale": "query", "mask": "pairs", "key": "twice"},
        {"scale": "both", "mask": "all"}, {"mask": "where"}, {"merged": True, "scale": "query"},
        {"merged": True, "mask": "all", "scale": "divided"}, {"merged": True, "mask": "keys", "scale": "both"},
        {"heads": 1, "length": 1}, {"each": 5, "keys": 70, "length": 40},
    ],
    ids=str,
)  # fmt: skip
def test_attention(form: dict) -> None:
    graph, feeds, constants = attention(**form)
    result = check(model_of(graph, feeds, ["y"], constants), feeds)
    kernels = collections.Counter(kernel.op for kernel in result.model.kernels)
    assert kernels["attention"] == 1 and kernels["matmul"] == 3
    assert kernels["transpose"] == 0 or form.get("merged")  # two sequences whose heads are one axis lie apart


def test_attention_whose_weights_are_returned_is_left_alone() -> None:
    graph, feeds, constants = attention()
    result = check(model_of(graph, feeds, ["y", "w"], constants), feeds)
    assert "attention" not in {kernel.op for kernel in result.model.kernels}


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
