# SPDX-License-Identifier: Apache-2.0
"""conv2d and depthwise_conv2d against ONNX Runtime: shapes, layouts, ends, instruction sets, schedules."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from .harness import INSTRUCTION_SETS, Array, Instance, RefusedError, check_schedules, difference

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """A convolution. x is N, C, H, W here, as in ONNX."""

    x: tuple[int, int, int, int]
    out: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1
    bias: bool = True
    residual: int = 0  # channels
    activation: str = "none"
    alpha: float | None = None
    beta: float | None = None
    activation_first: bool = False
    input_layout: str = "nhwc"
    output_layout: str = "nhwc"

    @property
    def op(self) -> str:
        return "depthwise_conv2d" if self.group == self.x[1] and self.group > 1 else "conv2d"


@dataclass
class Data:
    """Seeded values of sensible scale."""

    x: Array
    w: Array
    bias: Array
    slope: Array
    residual: Array


def make_data(case: Case) -> Data:
    generator = np.random.default_rng(abs(hash((case.x, case.out, case.kernel, case.group))) % 2**32)
    fan = case.x[1] // case.group * case.kernel[0] * case.kernel[1]
    w = generator.normal(0, fan**-0.5, (case.out, case.x[1] // case.group, *case.kernel))
    size = [
        (case.x[i + 2] + case.pads[i] + case.pads[i + 2] - (case.kernel[i] - 1) * case.dilations[i] - 1)
        // case.strides[i]
        + 1
        for i in range(2)
    ]
    return Data(
        generator.normal(size=case.x).astype(np.float32),
        w.astype(np.float32),
        generator.normal(size=case.out).astype(np.float32),
        generator.uniform(-0.5, 0.9, case.out).astype(np.float32),
        generator.normal(size=(case.x[0], max(case.residual, 1), *size)).astype(np.float32),
    )


ONNX_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "elu": ("Elu", {"alpha": 0.7}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}),
    "hard_swish": ("HardSwish", {}),
    "gelu": ("Gelu", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
}


def reference(case: Case, data: Data) -> Array:
    """N, C, H, W from ONNX Runtime: a Conv node and, one by one, what is fused into it here."""
    nodes = [
        helper.make_node(
            "Conv",
            ["x", "w", "bias"] if case.bias else ["x", "w"],
            ["t"],
            strides=case.strides,
            pads=case.pads,
            dilations=case.dilations,
            group=case.group,
            kernel_shape=case.kernel,
        )
    ]
    tensors = {"w": data.w}
    if case.bias:
        tensors["bias"] = data.bias
    if case.activation == "prelu":
        tensors["slope"] = data.slope.reshape(-1, 1, 1)
    last = "t"

    def act() -> None:
        nonlocal last
        if case.activation == "none":
            return
        if case.activation == "clip":
            tensors["low"], tensors["high"] = np.float32(case.alpha), np.float32(case.beta)  # type: ignore[assignment]
            nodes.append(helper.make_node("Clip", [last, "low", "high"], ["a"]))
        elif case.activation == "prelu":
            nodes.append(helper.make_node("PRelu", [last, "slope"], ["a"]))
        elif case.activation == "silu":
            nodes.append(helper.make_node("Sigmoid", [last], ["s"]))
            nodes.append(helper.make_node("Mul", [last, "s"], ["a"]))
        else:
            name, attributes = ONNX_ACTIVATIONS[case.activation]
            nodes.append(helper.make_node(name, [last], ["a"], **attributes))
        last = "a"

    if case.activation_first:
        act()
    if case.residual:
        widths = ((0, 0), (0, case.out - case.residual), (0, 0), (0, 0))
        tensors["residual"] = np.pad(data.residual, widths)
        nodes.append(helper.make_node("Add", [last, "residual"], ["r"]))
        last = "r"
    if not case.activation_first:
        act()
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, case.x)],
        [value(last, onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": data.x})[0]


def nhwc(array: Array) -> Array:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def attributes_of(case: Case) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "strides": case.strides,
        "pads": case.pads,
        "dilations": case.dilations,
        "group": case.group,
        "bias": case.bias,
        "residual": case.residual > 0,
        "activation": case.activation,
        "activation_first": case.activation_first,
        "input_layout": case.input_layout,
        "output_layout": case.output_layout,
    }
    fixed = ONNX_ACTIVATIONS.get(case.activation, ("", {}))[1]
    attributes |= {name: value for name, value in (("alpha", case.alpha), ("beta", case.beta)) if value is not None}
    return attributes | fixed


def instance_of(case: Case, data: Data, isa: str) -> Instance:
    tensors = [data.x if case.input_layout == "nchw" else nhwc(data.x), data.w]
    constants = [1]
    if case.bias:
        constants.append(len(tensors))
        tensors.append(data.bias)
    if case.residual:
        tensors.append(nhwc(data.residual))
    if case.activation == "prelu":
        constants.append(len(tensors))
        tensors.append(data.slope)
    shape = (case.x[0], data.residual.shape[2], data.residual.shape[3], case.out)
    if case.output_layout == "nchw":
        shape = (shape[0], shape[3], shape[1], shape[2])
    return Instance(case.op, [*tensors, np.empty(shape, np.float32)], attributes_of(case), constants=constants, isa=isa)


def check(case: Case, isa: str, *, schedules: bool = False) -> None:
    data = make_data(case)
    instance = instance_of(case, data, isa)
    y = check_schedules(instance) if schedules else instance.run()
    y = y if case.output_layout == "nchw" else np.ascontiguousarray(y.transpose(0, 3, 1, 2))
    assert difference(y, reference(case, data)) < TOLERANCE


SHAPES = {
    "pointwise": Case((1, 64, 14, 14), 128, (1, 1)),
    "pointwise ragged": Case((1, 88, 16, 16), 6, (1, 1)),
    "pointwise batch": Case((3, 17, 7, 5), 33, (1, 1)),
    "pointwise stride": Case((2, 24, 15, 14), 40, (1, 1), (2, 2)),
    "pointwise padded": Case((1, 8, 9, 9), 20, (1, 1), pads=(1, 0, 2, 3)),
    "pointwise one pixel": Case((1, 130, 1, 1), 213, (1, 1)),
    "pointwise deep": Case((1, 2050, 7, 7), 48, (1, 1)),
    "3x3": Case((1, 32, 28, 28), 64, (3, 3), pads=(1, 1, 1, 1)),
    "3x3 of 7": Case((1, 160, 7, 7), 96, (3, 3), pads=(1, 1, 1, 1)),
    "3x3 wide": Case((1, 16, 5, 130), 24, (3, 3), pads=(1, 1, 1, 1)),
    "3x3 valid": Case((2, 24, 11, 13), 12, (3, 3)),
    "3x3 stride": Case((2, 20, 27, 26), 30, (3, 3), (2, 2), (0, 0, 1, 1)),
    "3x3 dilated": Case((1, 12, 19, 17), 18, (3, 3), pads=(2, 3, 2, 3), dilations=(2, 3)),
    "3x3 valid dilated": Case((1, 12, 19, 17), 18, (3, 3), dilations=(1, 2)),
    "3x3 groups": Case((1, 32, 14, 14), 48, (3, 3), pads=(1, 1, 1, 1), group=4),
    "3x3 many groups": Case((2, 64, 9, 9), 64, (3, 3), pads=(1, 1, 1, 1), group=32),
    "valid groups": Case((1, 12, 9, 9), 24, (2, 3), group=3),
    "pointwise groups": Case((1, 24, 28, 28), 60, (1, 1), group=3),
    "tiny maps": Case((2, 64, 4, 4), 64, (3, 3), pads=(1, 1, 1, 1)),
    "2x2 of 2": Case((1, 128, 2, 2), 213, (2, 2)),
    "one output": Case((2, 32, 3, 3), 1, (3, 3), (3, 3)),
    "5x5 asymmetric": Case((1, 24, 21, 20), 16, (5, 5), (2, 2), (1, 1, 2, 2)),
    "7x7 stride": Case((1, 3, 56, 56), 64, (7, 7), (2, 2), (3, 3, 3, 3)),
    "1x7": Case((1, 48, 17, 17), 40, (1, 7), pads=(0, 3, 0, 3)),
    "7x1": Case((1, 48, 17, 17), 40, (7, 1), pads=(3, 0, 3, 0)),
    "first layer": Case((2, 3, 33, 31), 24, (3, 3), (2, 2), (1, 1, 1, 1), input_layout="nchw"),
    "first layer valid": Case((1, 3, 30, 34), 24, (3, 3), (2, 2), input_layout="nchw"),
    "one channel first": Case((1, 1, 28, 28), 8, (5, 5), pads=(2, 2, 2, 2), input_layout="nchw"),
    "grey valid": Case((1, 1, 28, 28), 8, (5, 5), input_layout="nchw"),
    "nchw both": Case((2, 20, 12, 12), 33, (3, 3), pads=(1, 1, 1, 1), input_layout="nchw", output_layout="nchw"),
    "nchw tiny": Case((2, 6, 3, 3), 5, (3, 3), pads=(1, 1, 1, 1), input_layout="nchw", output_layout="nchw"),
    "nchw out": Case((2, 40, 8, 8), 21, (1, 1), output_layout="nchw"),
    "pads beyond kernel": Case((1, 5, 6, 6), 9, (3, 3), pads=(4, 5, 4, 5)),
    "no bias": Case((1, 16, 10, 10), 16, (3, 3), pads=(1, 1, 1, 1), bias=False),
    "large stride": Case((1, 7, 40, 40), 9, (3, 3), (7, 6), (1, 1, 1, 1)),
    "big pads": Case((1, 4, 3, 3), 6, (3, 3), (1000, 1000), (1001, 1001, 1001, 1001)),
    "depthwise": Case((1, 96, 28, 28), 96, (3, 3), pads=(1, 1, 1, 1), group=96),
    "depthwise ragged": Case((2, 42, 13, 15), 42, (3, 3), (2, 2), (0, 0, 1, 1), group=42),
    "depthwise few": Case((1, 6, 17, 19), 6, (5, 5), pads=(2, 2, 2, 2), group=6),
    "depthwise 5x5": Case((1, 144, 14, 14), 144, (5, 5), pads=(2, 2, 2, 2), group=144),
    "depthwise 5x5 stride": Case((1, 72, 31, 27), 72, (5, 5), (2, 2), (2, 2, 2, 2), group=72),
    "depthwise valid": Case((1, 64, 30, 30), 64, (3, 3), (2, 2), group=64),
    "depthwise tiny": Case((3, 130, 2, 2), 130, (3, 3), pads=(1, 1, 1, 1), group=130),
    "depthwise 7x7": Case((1, 40, 12, 20), 40, (7, 7), pads=(3, 3, 3, 3), group=40),
    "depthwise dilated": Case((1, 33, 20, 20), 33, (3, 3), pads=(4, 2, 4, 2), dilations=(4, 2), group=33),
    "depthwise rectangular": Case((1, 24, 9, 20), 24, (1, 5), (3, 1), (0, 2, 0, 2), group=24),
    "depthwise multiplier": Case((2, 20, 11, 12), 60, (3, 3), pads=(1, 1, 1, 1), group=20),
    "depthwise nchw": Case(
        (2, 20, 11, 12), 20, (3, 3), pads=(1, 1, 1, 1), group=20, input_layout="nchw", output_layout="nchw"
    ),
    "depthwise far pads": Case((1, 18, 5, 5), 18, (3, 3), pads=(5, 6, 5, 6), group=18),
    "depthwise many": Case((1, 1152, 7, 7), 1152, (5, 5), pads=(2, 2, 2, 2), group=1152),
    "winograd": Case((1, 64, 28, 28), 64, (3, 3), pads=(1, 1, 1, 1)),
    "winograd ragged": Case((2, 50, 21, 30), 41, (3, 3), pads=(1, 1, 1, 1)),
    "winograd valid": Case((1, 48, 30, 18), 80, (3, 3)),
    "winograd deep": Case((1, 400, 20, 20), 36, (3, 3), pads=(1, 1, 1, 1)),
    "winograd many panels": Case((1, 96, 30, 29), 200, (3, 3), pads=(1, 1, 1, 1)),
    "winograd far pads": Case((1, 32, 13, 9), 32, (3, 3), pads=(5, 4, 6, 3)),
    "winograd nchw": Case((2, 32, 15, 15), 32, (3, 3), pads=(1, 1, 1, 1), output_layout="nchw"),
    "long filter": Case((1, 900, 9, 9), 20, (3, 1), pads=(1, 0, 1, 0)),
}


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, isa: str) -> None:
    check(SHAPES[name], isa, schedules=True)


ENDS = [
    {"activation": "relu"},
    {"activation": "clip", "alpha": -0.25, "beta": 0.5},
    {"activation": "prelu"},
    {"activation": "silu"},
    *({"activation": name} for name in ONNX_ACTIVATIONS if name != "relu"),
    {"residual": 40},
    {"residual": 40, "activation": "relu"},
    {"residual": 21, "activation": "prelu"},
    {"residual": 33},
    {"residual": 3, "activation": "sigmoid"},
    {"residual": 40, "activation": "relu", "activation_first": True},
    {"residual": 17, "activation": "silu", "activation_first": True},
    {"residual": 17, "activation": "prelu", "activation_first": True},
    {"residual": 36, "output_layout": "nchw", "activation": "relu"},
    {"activation": "tanh", "output_layout": "nchw"},
]


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: " ".join(str(value) for value in end.values()))
def test_ends(end: dict[str, Any], op: str, isa: str) -> None:
    group = 40 if op == "depthwise_conv2d" else 1
    case = Case((2, 40, 9, 10), 40, (3, 3), pads=(1, 1, 1, 1), group=group)
    check(replace(case, **end), isa)


@pytest.mark.parametrize("seed", range(90))
def test_random_shapes(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def pick(low: int, high: int) -> int:
        return int(generator.integers(low, high + 1))

    group = pick(1, 4) if generator.random() < 0.3 else 1
    kernel = (pick(1, 5), pick(1, 5))
    dilations = (pick(1, 2), pick(1, 2))
    pads = tuple(pick(0, 3) for _ in range(4))
    least = [max((kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2], 1) for i in range(2)]
    case = Case(
        (pick(1, 3), group * pick(1, 40), least[0] + pick(0, 30), least[1] + pick(0, 30)),
        group * pick(1, 70),
        kernel,
        (pick(1, 3), pick(1, 3)),
        pads,
        dilations,
        group,
        bias=pick(0, 1) == 1,  # type: ignore[arg-type]
        input_layout=("nhwc", "nchw")[pick(0, 1)],
        output_layout=("nhwc", "nchw")[pick(0, 3) // 3],
    )
    if seed % 3 == 0:
        case = replace(case, group=case.x[1], out=case.x[1] * pick(1, 2))
    check(case, INSTRUCTION_SETS[seed // 3 % len(INSTRUCTION_SETS)], schedules=True)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_blocks_are_cut_by_work(isa: str) -> None:
    """About 40 us of nominal work in a block, never more than 160, and eight blocks where they stay above 3 us."""
    lanes = {"avx512": 16, "avx2": 8}.get(isa, 4)
    sizes = [(512, 28, 512, 3), (256, 56, 256, 3), (128, 28, 32, 3), (1024, 14, 256, 1), (64, 14, 64, 1), (8, 8, 8, 3)]
    for channels, size, out, kernel in sizes:
        pad = kernel // 2
        case = Case((1, channels, size, size), out, (kernel, kernel), pads=(pad, pad, pad, pad))
        data = make_data(case)
        blocks = instance_of(case, data, isa).blocks
        # Winograd's filtering takes a quarter of the multiplications.
        direct = channels * size * size * out * kernel**2 / (5000 * lanes)
        assert blocks >= direct / 4 / 160
        assert blocks <= max(direct / 3, 1) + 1
        assert blocks >= min(8, direct / 4 / 20)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strides": [0, 1]}, r"strides\[0\] is 0"),
        ({"strides": [1]}, "strides has 1 values"),
        ({"dilations": [1, -3]}, r"dilations\[1\] is -3"),
        ({"pads": [0, 0, -1, 0]}, r"pads\[2\] is -1"),
        ({"pads": [0, 0, 2**40, 0]}, r"pads\[2\]"),
        ({"group": 3}, "3 groups do not divide"),
        ({"group": 2}, "channels in a group"),
        ({"bias": 0}, "has 4 arguments, expected 3"),
        ({"residual": 1}, "has 4 arguments, expected 5"),
        ({"activation": "prelu"}, "has 4 arguments, expected 5"),
        ({"activation": "wobble"}, "unknown activation 'wobble'"),
        ({"input_layout": "chwn"}, "neither nhwc nor nchw"),
        ({"strides": [2, 2]}, "should have 8 channels of 3 x 3"),
    ],
)
def test_refuses(change: dict[str, Any], words: str) -> None:
    generator = np.random.default_rng(0)
    shapes = ((1, 6, 6, 4), (8, 4, 1, 1), (8,), (1, 6, 6, 8))
    tensors = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    with pytest.raises(RefusedError, match=words):
        Instance("conv2d", tensors, {"bias": 1} | change, constants=(1, 2))


def test_refuses_what_changes() -> None:
    generator = np.random.default_rng(0)
    shapes = ((1, 6, 6, 4), (8, 4, 1, 1), (8,), (1, 6, 6, 8))
    tensors = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    with pytest.raises(RefusedError, match="not constant"):
        Instance("conv2d", tensors, {"bias": 1}, constants=(2,))
    with pytest.raises(RefusedError, match="must be constant"):
        Instance("conv2d", tensors, {"bias": 1}, constants=(1,))
