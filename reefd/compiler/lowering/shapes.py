# SPDX-License-Identifier: Apache-2.0
"""Operators that move or rename elements without computing."""

import math

import numpy as np

from reefd.compiler.errors import Unsupported
from reefd.compiler.ir import Node, Value
from reefd.compiler.lowering.builder import MAX_RANK, Builder, axis_of, present, room, static, static_ints


def reshape(build: Builder, node: Node) -> Value:
    """Reshape, Flatten, Squeeze and Unsqueeze: shape inference has said what comes out."""
    return build.reshape(node.input(0), node.output.shape)


def transpose(build: Builder, node: Node) -> Value:
    x = node.input(0)
    perm = node.attributes.get("perm", list(range(x.rank))[::-1])
    if sorted(perm) != list(range(x.rank)):
        raise Unsupported(f"{perm} for a tensor of rank {x.rank}", attribute="perm")
    return build.transpose(x, perm)


def concat(build: Builder, node: Node) -> Value:
    values = [value for value in node.reads() if value.size]
    axis = axis_of(node, "axis", 1, node.output.rank)
    if len(values) == 1:
        return values[0]
    return build.emit("concat", values, node.output.shape, axis=axis)


def depth_to_space(build: Builder, node: Node) -> Value:
    x = node.input(0)
    n, c, h, w = x.shape
    b = int(node.attributes["blocksize"])
    mode = node.attributes.get("mode", "DCR")
    if mode == "DCR":
        split = build.transpose(build.reshape(x, [n, b, b, c // (b * b), h, w]), [0, 3, 4, 1, 5, 2])
    elif mode == "CRD":
        split = build.transpose(build.reshape(x, [n, c // (b * b), b, b, h, w]), [0, 1, 4, 2, 5, 3])
    else:
        raise Unsupported(f"{mode!r} is unknown", attribute="mode", nearest="DCR, CRD")
    return build.reshape(split, node.output.shape)


def space_to_depth(build: Builder, node: Node) -> Value:
    x = node.input(0)
    n, c, h, w = x.shape
    b = int(node.attributes["blocksize"])
    mode = node.attributes.get("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise Unsupported(f"{mode!r} is unknown", attribute="mode", nearest="DCR, CRD")
    perm = [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4]
    split = build.transpose(build.reshape(x, [n, c, h // b, b, w // b, b]), perm)
    return build.reshape(split, node.output.shape)


def pad(build: Builder, node: Node) -> Value:
    x = node.input(0)
    pads = static_ints(node, 1, "pads")
    if pads is None:
        pads = [int(p) for p in node.attributes.get("pads", node.attributes.get("paddings", []))]
    axes = static_ints(node, 3, "axes")
    if axes is not None:
        full = [0] * (2 * x.rank)
        for place, axis in enumerate(axes):
            full[axis % x.rank], full[x.rank + axis % x.rank] = pads[place], pads[len(axes) + place]
        pads = full
    mode = str(node.attributes.get("mode", "constant"))
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise Unsupported(f"{mode!r} is unknown", attribute="mode", nearest="constant, reflect, edge, wrap")
    fill = static(node, 2, "constant_value")
    value = float(fill.reshape(-1)[0]) if fill is not None and fill.size else float(node.attributes.get("value", 0.0))
    if mode == "reflect" and any(
        max(pads[axis], pads[x.rank + axis]) >= extent for axis, extent in enumerate(x.shape) if extent > 1
    ):
        raise Unsupported("a reflection longer than its axis", attribute="mode")
    return build.pad(x, pads, value, mode)


def slice_(build: Builder, node: Node) -> Value:
    x = node.input(0)
    starts, ends = static_ints(node, 1, "starts"), static_ints(node, 2, "ends")
    if starts is None or ends is None:
        starts, ends = list(node.attributes["starts"]), list(node.attributes["ends"])
    axes = static_ints(node, 3, "axes") or list(node.attributes.get("axes", range(len(starts))))
    steps = static_ints(node, 4, "steps") or [1] * len(starts)
    first, step = [0] * x.rank, [1] * x.rank
    for axis, start, end, stride in zip(axes, starts, ends, steps, strict=True):
        begin, _, _ = slice(start, end, stride).indices(x.shape[axis % x.rank])
        first[axis % x.rank], step[axis % x.rank] = begin, stride
    return build.slice(x, first, step, node.output.shape)


def split(build: Builder, node: Node) -> list[Value]:
    x = node.input(0)
    axis = axis_of(node, "axis", 0, x.rank)
    parts, start = [], 0
    for output in node.outputs:
        if output is None:
            continue
        starts = [start if other == axis else 0 for other in range(x.rank)]
        parts.append(build.slice(x, starts, [1] * x.rank, output.shape))
        start += output.shape[axis]
    return parts


def expand(build: Builder, node: Node) -> Value:
    x = node.input(0)
    return x if x.shape == node.output.shape else build.emit("expand", [x], node.output.shape)


def tile(build: Builder, node: Node) -> Value:
    """[a, b] repeated (r, s) is [1, a, 1, b] expanded to [r, a, s, b]. Axes that need not be apart are one meanwhile,
    and what has too many axes is repeated along one after the other."""
    x = node.input(0)
    repeats = static_ints(node, 1, "repeats") or [1] * x.rank
    if set(repeats) <= {1}:
        return x
    apart: list[int] = []
    wide: list[int] = []
    shape = list(x.shape)
    inner = 1  # of the axes since the last repeated one
    for axis in reversed(range(x.rank)):
        inner *= x.shape[axis]
        if repeats[axis] == 1 and axis:
            continue
        apart, wide = [1, inner, *apart], [repeats[axis], inner, *wide]
        shape[axis] *= repeats[axis]
        inner = 1
        if len(wide) + 3 > MAX_RANK or axis == 0:
            ahead = math.prod(x.shape[:axis])
            x = build.emit("expand", [build.reshape(x, [ahead, *apart])], [ahead, *wide])
            x = build.reshape(x, shape)
            apart, wide = [], []
            inner = math.prod(shape[axis:])
    return x


def gather(build: Builder, node: Node) -> Value:
    x, indices = node.input(0), node.input(1)
    axis = axis_of(node, "axis", 0, x.rank)
    if indices.data is not None and indices.data.size == 1:  # one place of an axis: a slice
        start = int(indices.data.reshape(-1)[0]) % x.shape[axis]
        starts = [start if other == axis else 0 for other in range(x.rank)]
        one = build.slice(x, starts, [1] * x.rank, [1 if other == axis else n for other, n in enumerate(x.shape)])
        return build.reshape(one, node.output.shape)
    return build.emit("gather", [x, indices], node.output.shape, axis=axis)


def gather_elements(build: Builder, node: Node) -> Value:
    x, indices = node.input(0), node.input(1)
    axis = axis_of(node, "axis", 0, x.rank)
    return build.emit("gather_elements", [x, indices], node.output.shape, axis=axis)


def gather_nd(build: Builder, node: Node) -> Value:
    batch = int(node.attributes.get("batch_dims", 0))
    return build.emit("gather_nd", [node.input(0), node.input(1)], node.output.shape, batch_dims=batch)


def scatter_elements(build: Builder, node: Node) -> Value:
    x = node.input(0)
    axis = axis_of(node, "axis", 0, x.rank)
    reduction = str(node.attributes.get("reduction", "none"))
    return build.emit("scatter_elements", list(node.reads()), x.shape, axis=axis, reduction=reduction)


def scatter_nd(build: Builder, node: Node) -> Value:
    reduction = str(node.attributes.get("reduction", "none"))
    return build.emit("scatter_nd", list(node.reads()), node.output.shape, reduction=reduction)


def constant_of_shape(build: Builder, node: Node) -> Value:
    fill = node.attributes.get("value")
    data = np.zeros(1, np.float32) if fill is None else fill
    room(node.output.size)
    return build.constant(np.full(node.output.shape, data.reshape(-1)[0], data.dtype))


def one_hot(build: Builder, node: Node) -> Value:
    indices, values = node.input(0), present(node, 2)
    static(node, 1, "depth")
    assert values is not None
    axis = int(node.attributes.get("axis", -1)) % node.output.rank
    return build.emit("one_hot", [indices, values], node.output.shape, values.dtype, axis=axis)


def trilu(build: Builder, node: Node) -> Value:
    x = node.input(0)
    k = static(node, 1, "k")
    diagonal = 0 if k is None else int(k.reshape(-1)[0])
    rows, columns = x.shape[-2:]
    upper = bool(node.attributes.get("upper", 1))
    room(rows * columns)
    place = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    keep = place >= diagonal if upper else place <= diagonal
    return build.emit("where", [build.constant(keep), x, build.scalar(0, x)], x.shape, x.dtype)


def eye_like(build: Builder, node: Node) -> Value:
    rows, columns = node.output.shape
    room(rows * columns)
    return build.constant(np.eye(rows, columns, int(node.attributes.get("k", 0)), node.output.dtype))
