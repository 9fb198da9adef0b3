# SPDX-License-Identifier: Apache-2.0
"""Convolutions and pooling: operators with a window that moves over the spatial axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reefd.compiler.errors import Unsupported
from reefd.compiler.ir import Node, Value
from reefd.compiler.lowering import resampling
from reefd.compiler.lowering.builder import Builder, present


class _Window:
    """Kernel, strides, dilations and pads of a node with `rank` spatial axes, auto_pad resolved."""

    def __init__(self, node: Node, kernel: Sequence[int], extents: Sequence[int], outputs: Sequence[int]) -> None:
        rank = len(kernel)
        take = node.attributes.get
        self.kernel = [int(k) for k in kernel]
        self.strides = [int(s) for s in take("strides", [1] * rank)]
        self.dilations = [int(d) for d in take("dilations", [1] * rank)]
        given = [int(k) for k in take("kernel_shape", self.kernel)]
        if given != self.kernel:
            raise Unsupported(f"{given} contradicts its weights", attribute="kernel_shape")
        if min([*self.strides, *self.dilations, *self.kernel], default=1) < 1:
            raise Unsupported("a window extent, stride or dilation below 1")
        pads = [int(p) for p in take("pads", [0] * 2 * rank)]
        mode = take("auto_pad", "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            pads = [0] * 2 * rank
            for axis in range(rank):
                reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
                total = max((outputs[axis] - 1) * self.strides[axis] + reach - extents[axis], 0)
                first = total // 2 if mode == "SAME_UPPER" else total - total // 2
                pads[axis], pads[rank + axis] = first, total - first
        elif mode == "VALID":
            pads = [0] * 2 * rank
        elif mode != "NOTSET":
            raise Unsupported(f"{mode!r} is unknown", attribute="auto_pad")
        self.pads = pads
        # ceil_mode and the like let the last window reach further than the pads say.
        self.reach = [
            (outputs[axis] - 1) * self.strides[axis] + (self.kernel[axis] - 1) * self.dilations[axis] + 1
            - extents[axis] - pads[axis]
            for axis in range(rank)
        ]  # fmt: skip

    def attributes(self) -> dict[str, Any]:
        return {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}


def _planar(build: Builder, value: Value) -> Value:
    """N, C, W as N, C, 1, W."""
    return build.reshape(value, [*value.shape[:2], 1, value.shape[2]])


def conv(build: Builder, node: Node) -> Value:
    x, w, bias = node.input(0), node.input(1), present(node, 2)
    shape = node.output.shape
    if x.rank < 3:
        raise Unsupported(f"an input of rank {x.rank}", nearest="rank 3 to 5")
    window = _Window(node, w.shape[2:], x.shape[2:], shape[2:])
    group = int(node.attributes.get("group", 1))
    if x.dtype == "float32" and x.rank <= 4 and w.data is not None and (bias is None or bias.data is not None):
        if x.rank == 3:
            window.kernel, window.strides = [1, *window.kernel], [1, *window.strides]
            window.dilations, window.pads = [1, *window.dilations], [0, window.pads[0], 0, window.pads[1]]
            y = conv2d(build, _planar(build, x), _planar(build, w), bias, group, window)
            return build.reshape(y, shape)
        return conv2d(build, x, w, bias, group, window)
    return _conv_nd(build, x, w, bias, group, window, shape)


def conv2d(build: Builder, x: Value, w: Value, bias: Value | None, group: int, window: _Window) -> Value:
    outputs = [
        (x.shape[2 + a] + window.pads[a] + window.pads[2 + a] - (window.kernel[a] - 1) * window.dilations[a] - 1)
        // window.strides[a] + 1
        for a in range(2)
    ]  # fmt: skip
    depthwise = group == x.shape[1] and group > 1
    inputs = [x, w] if bias is None else [x, w, bias]
    attributes = {**window.attributes(), "group": group, "bias": int(bias is not None)}
    op = "depthwise_conv2d" if depthwise else "conv2d"
    return build.emit(op, inputs, [x.shape[0], w.shape[0], *outputs], **attributes)


def _conv_nd(
    build: Builder, x: Value, w: Value, bias: Value | None, group: int, window: _Window, shape: Sequence[int]
) -> Value:
    """Any rank and any operand, without packing: correct rather than fast."""
    inputs = [x, w] if bias is None else [x, w, bias]
    return build.emit("conv_nd", inputs, shape, group=group, bias=int(bias is not None), **window.attributes())


def conv_transpose(build: Builder, node: Node) -> Value:
    """A convolution with the kernel turned round, over the input with strides - 1 zeros between its elements."""
    x, w, bias = node.input(0), node.input(1), present(node, 2)
    shape = node.output.shape
    rank = x.rank - 2
    take = node.attributes.get
    group = int(take("group", 1))
    strides = [int(s) for s in take("strides", [1] * rank)]
    dilations = [int(d) for d in take("dilations", [1] * rank)]
    kernel = w.shape[2:]
    begins = _transposed_begins(node, x, kernel, strides, dilations, shape)
    channels, per_group = w.shape[0] // group, w.shape[1]
    # [C, O/g, K] -> [O, C/g, K], each spatial axis reversed
    turned = build.reshape(w, [group, channels, per_group, *kernel])
    turned = build.transpose(turned, [0, 2, 1, *range(3, 3 + rank)])
    turned = build.reshape(turned, [group * per_group, channels, *kernel])
    turned = _reversed(build, turned)
    reach = [(kernel[a] - 1) * dilations[a] for a in range(rank)]
    stretched = [(x.shape[2 + a] - 1) * strides[a] + 1 for a in range(rank)]
    front = [reach[a] - begins[a] for a in range(rank)]
    back = [shape[2 + a] + reach[a] - stretched[a] - front[a] for a in range(rank)]
    spread = build.pad(x, [0, 0, *front, 0, 0, *back], interior=[0, 0, *(s - 1 for s in strides)])
    plain = Node("Conv", node.name, [spread, turned, bias], node.outputs, {"dilations": dilations, "group": group})
    return conv(build, plain)


def _transposed_begins(
    node: Node, x: Value, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], shape: Sequence[int]
) -> list[int]:
    """How much is cut off before each spatial axis."""
    rank = len(kernel)
    take = node.attributes.get
    mode = take("auto_pad", "NOTSET")
    if mode == "VALID" or (mode == "NOTSET" and "output_shape" not in node.attributes):
        pads = take("pads", [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
        return [int(pad) for pad in pads[:rank]]
    extra = take("output_padding", [0] * rank)
    begins = []
    for a in range(rank):
        full = strides[a] * (x.shape[2 + a] - 1) + extra[a] + (kernel[a] - 1) * dilations[a] + 1
        total = max(full - shape[2 + a], 0)
        begins.append(total - total // 2 if mode == "SAME_LOWER" else total // 2)
    return begins


def _reversed(build: Builder, value: Value) -> Value:
    """Every axis after the second from its end to its start."""
    if value.data is not None:
        turned = value.data[(slice(None), slice(None), *[slice(None, None, -1)] * (value.rank - 2))]
        return Value(value.name, value.dtype, value.shape, np.ascontiguousarray(turned))
    starts = [0 if axis < 2 else extent - 1 for axis, extent in enumerate(value.shape)]
    steps = [1 if axis < 2 else -1 for axis in range(value.rank)]
    return build.emit("slice", [value], value.shape, starts=starts, steps=steps)


def pool(build: Builder, node: Node) -> Value | list[Value]:
    x = node.input(0)
    shape = node.output.shape
    mode = {"MaxPool": "max", "AveragePool": "average", "LpPool": "lp"}[node.op]
    window = _Window(node, node.attributes["kernel_shape"], x.shape[2:], shape[2:])
    rank = x.rank - 2
    include = int(node.attributes.get("count_include_pad", 0)) if mode == "average" else 0
    indices = len(node.outputs) > 1 and node.outputs[1] is not None
    overhang = any(window.reach[a] > window.pads[rank + a] for a in range(rank))
    simple = mode in ("max", "average") and x.dtype == "float32" and not indices
    if simple and rank <= 2 and not (include and overhang):
        pads = [*window.pads[:rank], *(max(window.reach[a], window.pads[rank + a]) for a in range(rank))]
        if rank == 1:
            window.kernel, window.strides, window.dilations = (
                [1, *window.kernel],
                [1, *window.strides],
                [1, *window.dilations],
            )
            pads, x = [0, pads[0], 0, pads[1]], _planar(build, x)
        planar = shape if rank == 2 else [*shape[:2], 1, shape[2]]
        attributes = {**window.attributes(), "pads": pads, "kernel": window.kernel}
        y = build.emit("pool2d", [x], planar, mode=mode, count_include_pad=include, **attributes)
        return build.reshape(y, shape)
    attributes = {**window.attributes(), "kernel": window.kernel}
    extra: dict[str, Any] = {"count_include_pad": include}
    if mode == "lp":
        extra["p"] = int(node.attributes.get("p", 2))
    if indices:
        extra["column_major"] = int(node.attributes.get("storage_order", 0))
        return build.emit_many("pool_nd", [x], [(shape, x.dtype), (shape, "int64")], mode=mode, **attributes, **extra)
    return build.emit("pool_nd", [x], shape, mode=mode, **attributes, **extra)


def global_pool(build: Builder, node: Node) -> Value:
    x = node.input(0)
    axes = list(range(2, x.rank))
    if node.op == "GlobalLpPool":
        p = float(node.attributes.get("p", 2))
        powered = build.binary("pow", build.unary("abs", x), build.scalar(p, x))
        return build.binary("pow", build.reduce("sum", powered, axes, True), build.scalar(1 / p, x))
    return build.reduce("max" if node.op == "GlobalMaxPool" else "mean", x, axes, True)


def resize(build: Builder, node: Node) -> Value:
    """Resize and Upsample."""
    x, shape = node.input(0), node.output.shape
    if not resampling.is_plain(node, shape):
        return resampling.resize(build, node)
    modern = node.op == "Resize" and node.opset > 10
    attributes = {
        "mode": node.attributes.get("mode", "nearest"),
        "coordinates": resampling.coordinates(node),
        "rounding": node.attributes.get("nearest_mode", "round_prefer_floor" if modern else "floor"),
    }
    if x.rank == 3:
        y = build.emit("resize2d", [_planar(build, x)], [*shape[:2], 1, shape[2]], **attributes)
        return build.reshape(y, shape)
    return build.emit("resize2d", [x], shape, **attributes)
