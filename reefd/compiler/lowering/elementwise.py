# SPDX-License-Identifier: Apache-2.0
"""Operators that work on one element at a time."""

from functools import reduce
from typing import Any

import numpy as np

from reefd.compiler.errors import Unsupported
from reefd.compiler.ir import Node, Value
from reefd.compiler.lowering.builder import Builder, present, room, static

# ONNX -> the function of the `unary` kernel, with nothing else to say.
UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "abs",
    "Neg": "neg", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign", "Erf": "erf",
    "Reciprocal": "reciprocal", "Softplus": "softplus", "Softsign": "softsign", "Mish": "mish", "Sin": "sin",
    "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh",
    "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh", "HardSwish": "hard_swish", "Not": "not", "BitwiseNot":
    "bit_not",
}  # fmt: skip

# ONNX -> the function of the `binary` kernel.
BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "And": "and", "Or": "or", "Xor": "xor",
    "BitwiseAnd": "bit_and", "BitwiseOr": "bit_or", "BitwiseXor": "bit_xor", "Equal": "equal", "Less": "less",
    "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal",
}  # fmt: skip


def unary(build: Builder, node: Node) -> Value:
    return build.unary(UNARY[node.op], node.input(0))


def leaky_relu(build: Builder, node: Node) -> Value:
    return build.unary("leaky_relu", node.input(0), alpha=float(node.attributes.get("alpha", 0.01)))


def elu(build: Builder, node: Node) -> Value:
    return build.unary("elu", node.input(0), alpha=float(node.attributes.get("alpha", 1.0)))


def celu(build: Builder, node: Node) -> Value:
    return build.unary("celu", node.input(0), alpha=float(node.attributes.get("alpha", 1.0)))


def selu(build: Builder, node: Node) -> Value:
    alpha = float(node.attributes.get("alpha", 1.67326319217681884765625))
    gamma = float(node.attributes.get("gamma", 1.05070102214813232421875))
    return build.unary("selu", node.input(0), alpha=alpha, beta=gamma)


def hard_sigmoid(build: Builder, node: Node) -> Value:
    alpha, beta = float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))
    return build.unary("hard_sigmoid", node.input(0), alpha=alpha, beta=beta)


def thresholded_relu(build: Builder, node: Node) -> Value:
    return build.unary("thresholded_relu", node.input(0), alpha=float(node.attributes.get("alpha", 1.0)))


def shrink(build: Builder, node: Node) -> Value:
    bias, limit = float(node.attributes.get("bias", 0.0)), float(node.attributes.get("lambd", 0.5))
    return build.unary("shrink", node.input(0), alpha=limit, beta=bias)


def gelu(build: Builder, node: Node) -> Value:
    approximate = node.attributes.get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise Unsupported(f"{approximate!r} is unknown", attribute="approximate", nearest="none, tanh")
    return build.unary("gelu_tanh" if approximate == "tanh" else "gelu", node.input(0))


def swish(build: Builder, node: Node) -> Value:
    alpha = float(node.attributes.get("alpha", 1.0))
    x = node.input(0)
    if alpha == 1.0:
        return build.unary("silu", x)
    return build.binary("mul", x, build.unary("sigmoid", build.binary("mul", x, build.scalar(alpha, x))))


def is_nan(build: Builder, node: Node) -> Value:
    return build.unary("is_nan", node.input(0), "bool")


def is_inf(build: Builder, node: Node) -> Value:
    negative = int(node.attributes.get("detect_negative", 1))
    positive = int(node.attributes.get("detect_positive", 1))
    return build.unary("is_inf", node.input(0), "bool", alpha=float(negative), beta=float(positive))


def clip(build: Builder, node: Node) -> Value:
    x = node.input(0)
    operands = [present(node, 1), present(node, 2)]
    if any(operand is not None and operand.data is None for operand in operands):
        for function, limit in zip(("max", "min"), operands, strict=True):
            x = x if limit is None else build.binary(function, x, build.reshape(limit, []))
        return x
    bounds: list[float | None] = []
    for name, operand in zip(("min", "max"), operands, strict=True):
        given = node.attributes.get(name)
        bounds.append(float(operand.data.reshape(-1)[0]) if operand is not None and operand.data is not None else given)
    if x.dtype != "float32":  # an activation's parameters are floats: wide integers need their own type
        for function, bound in zip(("max", "min"), bounds, strict=True):
            x = x if bound is None else build.binary(function, x, build.constant(_saturated(bound, x.dtype)))
        return x
    if bounds == [0.0, None]:
        return build.unary("relu", x)
    limits: dict[str, Any] = {
        key: float(bound) for key, bound in zip(("alpha", "beta"), bounds, strict=True) if bound is not None
    }
    return build.unary("clip", x, **limits) if limits else x


def _saturated(limit: float, dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return np.asarray(min(max(int(limit), int(info.min)), int(info.max)), dtype)
    return np.asarray(limit, dtype)


def prelu(build: Builder, node: Node) -> Value:
    x, slope = node.input(0), node.input(1)
    if node.opset < 7 and slope.rank == 1 and x.rank > 2:
        slope = build.reshape(slope, [slope.size, *[1] * (x.rank - 2)])
    if x.dtype == "float32" and slope.data is not None and x.rank >= 2:
        data = slope.data.reshape((1,) * (x.rank - slope.rank) + slope.shape) if slope.rank <= x.rank else slope.data
        channels = x.shape[1]
        if data.size == 1:
            data = np.broadcast_to(data.reshape(-1), (channels,))
        if data.size == channels and (data.ndim == 1 or data.shape[1] == channels):
            per_channel = build.constant(np.ascontiguousarray(data.reshape(channels)), name=slope.name)
            return build.emit("unary", [x, per_channel], x.shape, activation="prelu", axis=1)
    return build.binary("prelu", x, slope)


def binary(build: Builder, node: Node) -> Value:
    a, b = _old_broadcast(build, node)
    dtype = "bool" if node.op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual") else None
    if node.op == "Pow" and b.dtype != a.dtype:
        b = _power_operand(build, a, b)
        if b.dtype != a.dtype:  # an integer to a real power is computed in floating point
            return build.cast(build.binary("pow", build.cast(a, b.dtype), b), a.dtype)
    return build.binary(BINARY[node.op], a, b, dtype)


def _power_operand(build: Builder, a: Value, b: Value) -> Value:
    if np.dtype(a.dtype).kind == "f" or np.dtype(b.dtype).kind != "f":
        return build.cast(b, a.dtype)
    return build.cast(b, "float64")


def _old_broadcast(build: Builder, node: Node) -> tuple[Value, Value]:
    """Before opset 7, `axis` said where the second operand's axes lie in the first."""
    a, b = node.input(0), node.input(1)
    if node.opset < 7 and node.attributes.get("broadcast", 0) and "axis" in node.attributes:
        after = a.rank - int(node.attributes["axis"]) % a.rank - b.rank
        b = build.reshape(b, [*b.shape, *[1] * after])
    return a, b


def mod(build: Builder, node: Node) -> Value:
    return build.binary("fmod" if node.attributes.get("fmod", 0) else "mod", node.input(0), node.input(1))


def bit_shift(build: Builder, node: Node) -> Value:
    direction = str(node.attributes["direction"]).lower()
    return build.binary(f"shift_{direction}", node.input(0), node.input(1))


def variadic(build: Builder, node: Node) -> Value:
    """Max, Min, Sum and Mean of any number of operands."""
    operands = list(node.reads())
    function = {"Max": "max", "Min": "min", "Sum": "add", "Mean": "add"}[node.op]
    result = reduce(lambda a, b: build.binary(function, a, b), operands)
    if node.op == "Mean" and len(operands) > 1:
        result = build.binary("mul", result, build.scalar(1 / len(operands), result))
    return result


def cast(build: Builder, node: Node) -> Value:
    x, dtype = node.input(0), node.output.dtype
    if x.dtype == dtype:
        return x
    return build.cast(x, dtype)


def where(build: Builder, node: Node) -> Value:
    condition, a, b = (node.input(place) for place in range(3))
    return build.emit("where", [condition, a, b], node.output.shape, a.dtype)


def identity(build: Builder, node: Node) -> Value:
    return node.input(0)


def dropout(build: Builder, node: Node) -> Value | list[Value]:
    training = static(node, 2, "training_mode")
    ratio = static(node, 1, "ratio")
    if training is not None and bool(training.reshape(-1)[0]) and (ratio is None or float(ratio.reshape(-1)[0]) > 0):
        raise Unsupported("training mode", attribute="training_mode", nearest="inference")
    x = node.input(0)
    if len(node.outputs) > 1 and node.outputs[1] is not None:
        dtype = node.outputs[1].dtype
        room(x.size)
        return [x, build.constant(np.ones(x.shape, dtype))]
    return x


def batch_normalization(build: Builder, node: Node) -> Value:
    if node.attributes.get("training_mode", 0) or sum(value is not None for value in node.outputs) > 1:
        raise Unsupported("training mode", attribute="training_mode", nearest="inference")
    x, scale, bias, mean, variance = (node.input(place) for place in range(5))
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    trailing = [scale.size, *[1] * (x.rank - 2)] if node.attributes.get("spatial", 1) else list(scale.shape)
    if scale.data is not None and bias.data is not None and mean.data is not None and variance.data is not None:
        factor = scale.data.astype(np.float64) / np.sqrt(variance.data.astype(np.float64) + epsilon)
        offset = bias.data - mean.data * factor
        scaled = build.binary("mul", x, build.constant(factor.reshape(trailing), x.dtype, scale.name))
        return build.binary("add", scaled, build.constant(offset.reshape(trailing), x.dtype, bias.name))
    shifted = build.binary("add", variance, build.scalar(epsilon, variance))
    factor_value = build.binary("div", scale, build.unary("sqrt", shifted))
    centred = build.binary("sub", x, build.cast(build.reshape(mean, trailing), x.dtype))
    scaled = build.binary("mul", centred, build.cast(build.reshape(factor_value, trailing), x.dtype))
    return build.binary("add", scaled, build.cast(build.reshape(bias, trailing), x.dtype))
