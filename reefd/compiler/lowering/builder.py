# SPDX-License-Identifier: Apache-2.0
"""What a lowering function builds with: kernels with their result's shape, and the reshapes and transposes between
them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from reefd.compiler.errors import Unsupported
from reefd.compiler.ir import Node, Value

MAX_RANK = 8
MAX_CONSTANT = 1 << 28

# The functions of kernels/cpu/activation.hpp: what `unary` can do, and the end of any kernel with an epilogue.
VECTORISED = frozenset(
    {"relu", "clip", "leaky_relu", "prelu", "sigmoid", "silu", "hard_sigmoid", "hard_swish", "tanh", "gelu",
     "gelu_tanh", "elu", "exp", "log", "sqrt", "abs", "neg", "reciprocal", "floor", "ceil", "round", "erf", "softplus",
     "softsign", "mish", "selu", "celu", "sign", "thresholded_relu"}
)  # fmt: skip


class Builder:
    """Collects the kernels that one ONNX node becomes. Feature maps are N, C, H, W here; the layout stage turns
    them."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.source = ""  # the ONNX node in work; its kernels take its name
        self._names: dict[str, int] = {}

    def _name(self) -> str:
        count = self._names.get(self.source, 0)
        self._names[self.source] = count + 1
        return self.source if count == 0 else f"{self.source}.{count}"

    def emit(
        self, op: str, inputs: Sequence[Value], shape: Sequence[int], dtype: str | None = None, **attributes: Any
    ) -> Value:
        """A kernel with one output, of the first input's type unless `dtype` says otherwise."""
        return self.emit_many(op, inputs, [(shape, dtype or inputs[0].dtype)], **attributes)[0]

    def emit_many(
        self, op: str, inputs: Sequence[Value], outputs: Sequence[tuple[Sequence[int], str]], **attributes: Any
    ) -> list[Value]:
        name = self._name()
        values = []
        for place, (shape, dtype) in enumerate(outputs):
            if len(shape) > MAX_RANK:
                raise Unsupported(f"a tensor of rank {len(shape)}", nearest=f"rank at most {MAX_RANK}")
            values.append(Value(name if place == 0 else f"{name}:{place}", dtype, tuple(int(n) for n in shape)))
        self.nodes.append(Node(op, name, list(inputs), list(values), attributes, sources=[self.source]))
        return values

    def constant(self, array: np.ndarray | float, dtype: str | None = None, name: str = "") -> Value:
        data = np.asarray(array, dtype)
        return Value(name or f"{self._name()}.constant", data.dtype.name, data.shape, data)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        shape = tuple(int(extent) for extent in shape)
        if shape == value.shape:
            return value
        if math.prod(shape) != value.size:
            raise Unsupported(f"{list(value.shape)} cannot be seen as {list(shape)}")
        if value.data is not None:
            return Value(value.name, value.dtype, shape, value.data.reshape(shape))
        return self.emit("reshape", [value], shape)

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        perm = tuple(int(axis) for axis in perm)
        if perm == tuple(range(value.rank)):
            return value
        if value.data is not None:
            data = np.ascontiguousarray(value.data.transpose(perm))
            return Value(value.name, value.dtype, data.shape, data)
        return self.emit("transpose", [value], [value.shape[axis] for axis in perm], perm=list(perm))

    def unary(self, function: str, value: Value, dtype: str | None = None, **parameters: Any) -> Value:
        if value.dtype == "float32" and dtype is None and function in VECTORISED:
            return self.emit("unary", [value], value.shape, activation=function, **parameters)
        return self.emit("map", [value], value.shape, dtype, function=function, **parameters)

    def binary(self, function: str, a: Value, b: Value, dtype: str | None = None) -> Value:
        shape = np.broadcast_shapes(a.shape, b.shape)
        return self.emit("binary", [a, b], shape, dtype, function=function)

    def cast(self, value: Value, dtype: str) -> Value:
        if value.dtype == dtype:
            return value
        if value.data is not None:
            return Value(value.name, dtype, value.shape, value.data.astype(dtype))
        return self.emit("cast", [value], value.shape, dtype)

    def scalar(self, value: float, like: Value) -> Value:
        return self.constant(np.asarray(value, like.dtype))

    def pad(
        self, value: Value, pads: Sequence[int], fill: float = 0, mode: str = "constant",
        interior: Sequence[int] | None = None,
    ) -> Value:  # fmt: skip
        """`pads` are begins then ends; `interior` puts so many fills between two neighbours of each axis."""
        gaps = [0] * value.rank if interior is None else list(interior)
        shape = [
            (extent - 1) * (gaps[axis] + 1) + 1 + pads[axis] + pads[value.rank + axis]
            for axis, extent in enumerate(value.shape)
        ]
        if not any(pads) and not any(gaps):
            return value
        attributes: dict[str, Any] = {"pads": [int(pad) for pad in pads], "value": float(fill), "mode": mode}
        if any(gaps):
            attributes["interior"] = gaps
        return self.emit("pad", [value], shape, **attributes)

    def slice(self, value: Value, starts: Sequence[int], steps: Sequence[int], shape: Sequence[int]) -> Value:
        """Element i of an axis is element start + i * step of the input's; steps may be negative."""
        if tuple(shape) == value.shape and all(step == 1 for step in steps):
            return value
        return self.emit("slice", [value], shape, starts=[int(n) for n in starts], steps=[int(n) for n in steps])

    def matmul(self, a: Value, b: Value) -> Value:
        """Of values of rank 2 or more, broadcasting over the leading axes."""
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        narrow = np.dtype(a.dtype).itemsize < 4
        return self.emit("matmul_nd" if narrow else "matmul", [a, b], [*batch, a.shape[-2], b.shape[-1]])

    def reduce(self, function: str, value: Value, axes: Sequence[int], keepdims: bool) -> Value:
        axes = sorted({axis % value.rank for axis in axes}) if value.rank else []
        kept = [1 if axis in axes else extent for axis, extent in enumerate(value.shape)]
        result = self.emit("reduce", [value], kept, function=function, axes=axes)
        return result if keepdims else self.reshape(result, [n for axis, n in enumerate(kept) if axis not in axes])


def room(count: int) -> None:
    """Asked before a constant of `count` elements is made: shapes come from the file."""
    if count > MAX_CONSTANT:
        raise Unsupported(f"it needs a constant of {count} elements", nearest=f"at most {MAX_CONSTANT}")


def static(node: Node, index: int, what: str) -> np.ndarray | None:
    """The data of an optional input that decides shapes, None where it was left out."""
    if index >= len(node.inputs):
        return None
    value = node.inputs[index]
    if value is None:
        return None
    if value.data is None:
        raise Unsupported(f"its input {what!r} is computed while the model runs", nearest=f"a constant {what}")
    return value.data


def static_ints(node: Node, index: int, what: str) -> list[int] | None:
    data = static(node, index, what)
    return None if data is None else [int(item) for item in np.atleast_1d(data).reshape(-1)]


def present(node: Node, index: int) -> Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def axis_of(node: Node, attribute: str, default: int, rank: int) -> int:
    axis = int(node.attributes.get(attribute, default))
    if not -rank <= axis < max(rank, 1):
        raise Unsupported(f"axis {axis} of a tensor of rank {rank}", attribute=attribute)
    return axis % max(rank, 1)
