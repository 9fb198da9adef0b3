# SPDX-License-Identifier: Apache-2.0
"""Operators that look along an axis: reductions, softmax, normalisation, running sums, the largest k."""

import math

import numpy as np

from reefd.compiler.errors import Unsupported
from reefd.compiler.ir import Node, Value
from reefd.compiler.lowering.builder import Builder, axis_of, present, static, static_ints

_SIMPLE = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceL1": "sum_abs", "ReduceL2": "sum_square", "ReduceSumSquare": "sum_square", "ReduceLogSum": "sum",
    "ReduceLogSumExp": "max",
}  # fmt: skip


def reduction(build: Builder, node: Node) -> Value:
    x = node.input(0)
    axes = static_ints(node, 1, "axes")
    if axes is None:
        axes = [int(axis) for axis in node.attributes.get("axes", [])]
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return _finish(build, node, _start(build, node, x))
        axes = list(range(x.rank))
    if x.dtype == "bool":  # the largest and smallest of bits
        narrow = build.cast(x, "uint8")
        return build.cast(build.reshape(build.reduce(_SIMPLE[node.op], narrow, axes, True), node.output.shape), "bool")
    if node.op == "ReduceLogSumExp":
        top = build.reduce("max", x, axes, True)
        total = build.reduce("sum", build.unary("exp", build.binary("sub", x, top)), axes, True)
        return build.reshape(build.binary("add", build.unary("log", total), top), node.output.shape)
    reduced = build.reshape(build.reduce(_SIMPLE[node.op], x, axes, True), node.output.shape)
    return _finish(build, node, reduced)


def _start(build: Builder, node: Node, x: Value) -> Value:
    """A reduction over no axes still does what it does to each element."""
    if node.op == "ReduceL1":
        return build.unary("abs", x)
    return build.binary("mul", x, x) if node.op in ("ReduceSumSquare", "ReduceL2") else x


def _finish(build: Builder, node: Node, value: Value) -> Value:
    if node.op == "ReduceL2":
        if np.dtype(value.dtype).kind in "iu":
            return build.cast(build.unary("sqrt", build.cast(value, "float64")), value.dtype)
        return build.unary("sqrt", value)
    if node.op == "ReduceLogSum":
        return build.unary("log", value)
    return value


def arg_reduce(build: Builder, node: Node) -> Value:
    x = node.input(0)
    axis = axis_of(node, "axis", 0, x.rank)
    kept = [1 if other == axis else extent for other, extent in enumerate(x.shape)]
    function = "max" if node.op == "ArgMax" else "min"
    last = int(node.attributes.get("select_last_index", 0))
    places = build.emit("arg_reduce", [x], kept, "int64", axis=axis, function=function, last=last)
    return build.reshape(places, node.output.shape)


def softmax(build: Builder, node: Node) -> Value:
    """Before opset 13 the axes from `axis` on were one."""
    x = node.input(0)
    if node.opset < 13 and axis_of(node, "axis", 1, x.rank) != x.rank - 1:
        axis = axis_of(node, "axis", 1, x.rank)
        flat = build.reshape(x, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])
        return build.reshape(_softmax(build, flat, 1, node.op), x.shape)
    return _softmax(build, x, axis_of(node, "axis", 1 if node.opset < 13 else -1, x.rank), node.op)


def _softmax(build: Builder, x: Value, axis: int, op: str) -> Value:
    if x.rank == 0:
        return build.reshape(_softmax(build, build.reshape(x, [1]), 0, op), [])
    if op == "Hardmax":
        kept = [1 if other == axis else extent for other, extent in enumerate(x.shape)]
        places = build.emit("arg_reduce", [x], kept, "int64", axis=axis, function="max", last=0)
        flat = build.reshape(places, [extent for other, extent in enumerate(x.shape) if other != axis])
        values = build.constant(np.array([0, 1], x.dtype))
        return build.emit("one_hot", [flat, values], x.shape, x.dtype, axis=axis)
    if x.dtype == "float32":
        return build.emit("softmax", [x], x.shape, axis=axis, log=int(op == "LogSoftmax"))
    shifted = build.binary("sub", x, build.reduce("max", x, [axis], True))
    exponentials = build.unary("exp", shifted)
    total = build.reduce("sum", exponentials, [axis], True)
    if op == "LogSoftmax":
        return build.binary("sub", shifted, build.unary("log", total))
    return build.binary("div", exponentials, total)


def layer_normalization(build: Builder, node: Node) -> Value | list[Value]:
    x, scale, bias = node.input(0), node.input(1), present(node, 2)
    axis = axis_of(node, "axis", -1, x.rank)
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    wanted = [value for value in node.outputs if value is not None]
    if len(wanted) == 1 and _vectors(x, [scale, bias], axis):
        return normalized(build, x, scale, bias, axis, epsilon)
    axes = list(range(axis, x.rank))
    mean = build.reduce("mean", x, axes, True)
    centred = build.binary("sub", x, mean)
    variance = build.reduce("mean", build.binary("mul", centred, centred), axes, True)
    deviation = build.unary("sqrt", build.binary("add", variance, build.scalar(epsilon, variance)))
    inverse = build.unary("reciprocal", deviation)
    y = build.binary("mul", build.binary("mul", centred, inverse), scale)
    results = [y if bias is None else build.binary("add", y, bias), mean, inverse]
    return [
        value if declared.dtype == value.dtype else build.cast(value, declared.dtype)
        for value, declared in zip(results, node.outputs, strict=False)
        if declared is not None
    ]


def rms_normalization(build: Builder, node: Node) -> Value:
    x, scale = node.input(0), node.input(1)
    axis = axis_of(node, "axis", -1, x.rank)
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if _vectors(x, [scale], axis):
        return normalized(build, x, scale, None, axis, epsilon, center=False)
    mean = build.reduce("mean", build.binary("mul", x, x), list(range(axis, x.rank)), True)
    root = build.unary("sqrt", build.binary("add", mean, build.scalar(epsilon, mean)))
    return build.binary("mul", build.binary("div", x, root), scale)


def _vectors(x: Value, operands: list[Value | None], axis: int) -> bool:
    """Whether scale and bias have one element for each of the normalised ones, as the kernel wants."""
    length = math.prod(x.shape[axis:])
    return x.dtype == "float32" and all(
        operand is None or (operand.size == length and operand.dtype == "float32") for operand in operands
    )


def normalized(
    build: Builder, x: Value, scale: Value | None, bias: Value | None, axis: int, epsilon: float, center: bool = True
) -> Value:
    length = math.prod(x.shape[axis:])
    inputs = [build.reshape(x, [x.size // length, length] if axis != x.rank - 1 else x.shape)]
    inputs += [build.reshape(operand, [length]) for operand in (scale, bias) if operand is not None]
    flags = {"scale": int(scale is not None), "bias": int(bias is not None), "center": int(center)}
    y = build.emit("layer_norm", inputs, inputs[0].shape, "float32", epsilon=epsilon, **flags)
    return build.reshape(y, x.shape)


def instance_normalization(build: Builder, node: Node) -> Value:
    x, scale, bias = (node.input(place) for place in range(3))
    return _group_normalized(build, x, scale, bias, x.shape[1], float(node.attributes.get("epsilon", 1e-5)))


def group_normalization(build: Builder, node: Node) -> Value:
    x, scale, bias = (node.input(place) for place in range(3))
    groups = int(node.attributes["num_groups"])
    if scale.size == groups and groups != x.shape[1]:  # opset 18: one for each group
        repeat = x.shape[1] // groups
        widen = [build.emit("expand", [build.reshape(v, [groups, 1])], [groups, repeat]) for v in (scale, bias)]
        scale, bias = (build.reshape(value, [x.shape[1]]) for value in widen)
    return _group_normalized(build, x, scale, bias, groups, float(node.attributes.get("epsilon", 1e-5)))


def _group_normalized(build: Builder, x: Value, scale: Value, bias: Value, groups: int, epsilon: float) -> Value:
    grouped = build.reshape(x, [x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]])
    axes = list(range(2, grouped.rank))
    centred = build.binary("sub", grouped, build.reduce("mean", grouped, axes, True))
    variance = build.reduce("mean", build.binary("mul", centred, centred), axes, True)
    root = build.unary("sqrt", build.binary("add", variance, build.scalar(epsilon, x)))
    plain = build.reshape(build.binary("div", centred, root), x.shape)
    trailing = [x.shape[1], *[1] * (x.rank - 2)]
    scaled = build.binary("mul", plain, build.reshape(scale, trailing))
    return build.binary("add", scaled, build.reshape(bias, trailing))


def mean_variance_normalization(build: Builder, node: Node) -> Value:
    x = node.input(0)
    axes = [int(axis) for axis in node.attributes.get("axes", [0, 2, 3])]
    centred = build.binary("sub", x, build.reduce("mean", x, axes, True))
    variance = build.reduce("mean", build.binary("mul", centred, centred), axes, True)
    return build.binary("div", centred, build.binary("add", build.unary("sqrt", variance), build.scalar(1e-9, x)))


def lp_normalization(build: Builder, node: Node) -> Value:
    x = node.input(0)
    axis = axis_of(node, "axis", -1, x.rank)
    order = int(node.attributes.get("p", 2))
    norm = build.reduce("sum_abs" if order == 1 else "sum_square", x, [axis], True)
    if order == 2:
        norm = build.unary("sqrt", norm)
    # A line of zeros stays one.
    zero = build.binary("equal", norm, build.scalar(0, norm), "bool")
    safe = build.emit("where", [zero, build.scalar(1, norm), norm], norm.shape, norm.dtype)
    return build.binary("div", x, safe)


def local_response_normalization(build: Builder, node: Node) -> Value:
    """x / (bias + alpha / size * sum of squares over the neighbouring channels) ^ beta: a sum is an average pool."""
    x = node.input(0)
    size = int(node.attributes["size"])
    take = node.attributes.get
    alpha, beta, bias = float(take("alpha", 1e-4)), float(take("beta", 0.75)), float(take("bias", 1.0))
    square = build.binary("mul", x, x)
    # Channels become the columns of a picture: [N, 1, C, rest], pooled over C.
    rows = build.reshape(square, [x.shape[0], x.shape[1], math.prod(x.shape[2:])])
    turned = build.reshape(build.transpose(rows, [0, 2, 1]), [x.shape[0], rows.shape[2], 1, x.shape[1]])
    before = (size - 1) // 2
    pooled = build.emit(
        "pool2d", [turned], turned.shape, mode="average", kernel=[1, size], strides=[1, 1], dilations=[1, 1],
        pads=[0, before, 0, size - 1 - before], count_include_pad=1,
    )  # fmt: skip
    back = build.transpose(build.reshape(pooled, [x.shape[0], rows.shape[2], x.shape[1]]), [0, 2, 1])
    scaled = build.binary("mul", build.reshape(back, x.shape), build.scalar(alpha, x))
    power = build.binary("pow", build.binary("add", scaled, build.scalar(bias, x)), build.scalar(beta, x))
    return build.binary("div", x, power)


def cumulative(build: Builder, node: Node) -> Value:
    x = node.input(0)
    axis = static_ints(node, 1, "axis")
    if axis is None:
        raise Unsupported("its axis is missing")
    function = "sum" if node.op == "CumSum" else "prod"
    flags = {name: int(node.attributes.get(name, 0)) for name in ("reverse", "exclusive")}
    return build.emit("scan", [x], x.shape, axis=axis[0] % x.rank, function=function, reverse=flags["reverse"],
                      exclusive=flags["exclusive"])  # fmt: skip


def top_k(build: Builder, node: Node) -> list[Value]:
    x = node.input(0)
    axis = axis_of(node, "axis", -1, x.rank)
    static(node, 1, "K")
    count = next(value.shape[axis] for value in node.writes())
    perm = [*(other for other in range(x.rank) if other != axis), axis]
    turned = build.transpose(x, perm)
    shape = [*turned.shape[:-1], count]
    results = build.emit_many(
        "topk", [turned], [(shape, x.dtype), (shape, "int64")], largest=int(node.attributes.get("largest", 1))
    )
    back = [perm.index(other) for other in range(x.rank)]
    return [
        build.transpose(value, back) for value, wanted in zip(results, node.outputs, strict=True) if wanted is not None
    ]
