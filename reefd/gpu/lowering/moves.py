# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements, on the GPU: transpose, concat, slice, expand, pad, gathers and one_hot."""

import math
from typing import Any

from reefd.resource.schema import Kernel as Scheduled

from ..moves import copy_kernel, gather_elements_kernel, gather_kernel, gather_nd_kernel, one_hot_kernel
from ..shapes import broadcast_strides, dense_strides
from .state import Lowering, integer, integers


def _copy(low: Lowering, x: int, y: int, shape: list[int], xs: list[int], ys: list[int], **given: Any) -> None:
    low.launch(copy_kernel(shape, xs, ys, dtype=low.dtypes[y], x_dtype=low.dtypes[x], **given), x, y)


def transpose(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    perm = integers(k, "perm")
    strides = dense_strides(low.shape(x))
    shape = low.shape(y)
    _copy(low, x, y, shape, [strides[p] for p in perm], dense_strides(shape))


def concat(low: Lowering, k: Scheduled) -> None:
    *sources, y = k.args
    axis = integer(k, "axis")
    strides, start = dense_strides(low.shape(y)), 0
    for x in sources:
        shape = low.shape(x)
        _copy(low, x, y, shape, dense_strides(shape), strides, y_offset=start * strides[axis])
        start += shape[axis]


def slice_(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    starts = integers(k, "starts")
    steps = integers(k, "steps")
    strides, shape = dense_strides(low.shape(x)), low.shape(y)
    first = sum(s * stride for s, stride in zip(starts, strides, strict=True))
    stepped = [s * stride for s, stride in zip(steps, strides, strict=True)]
    _copy(low, x, y, shape, stepped, dense_strides(shape), x_offset=first)


def expand(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    shape = low.shape(y)
    _copy(low, x, y, shape, broadcast_strides(low.shape(x), shape), dense_strides(shape))


def pad(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    a: dict[str, Any] = dict(k.attributes)
    shape = low.shape(y)
    begins, gaps = list(a["pads"])[: len(shape)], list(a.get("interior", ())) or [0] * len(shape)
    given = {"begins": begins, "extents": low.shape(x), "gaps": gaps, "fill": float(a.get("value", 0.0))}
    mode = str(a.get("mode", "constant"))
    _copy(low, x, y, shape, dense_strides(low.shape(x)), dense_strides(shape), outside=mode, **given)


def gather(low: Lowering, k: Scheduled) -> None:
    x, indices, y = k.args
    axis = integer(k, "axis", 0)
    shape = low.shape(x)
    # A table of words takes half the room as what is read from it.
    dtype = low.dtypes[y] if low.is_weight(x) else low.dtypes[x]
    kernel = gather_kernel(
        math.prod(shape[:axis]),
        shape[axis],
        math.prod(shape[axis + 1 :]),
        low.size(indices),
        dtype=dtype,
        y_dtype=low.dtypes[y],
        index=low.dtypes[indices],
    )
    low.launch(kernel, low.read(x, dtype) if dtype != low.dtypes[x] else x, indices, y)


def gather_elements(low: Lowering, k: Scheduled) -> None:
    x, indices, y = k.args
    kernel = gather_elements_kernel(
        low.shape(x),
        low.shape(y),
        integer(k, "axis", 0),
        dtype=low.dtypes[x],
        y_dtype=low.dtypes[y],
        index=low.dtypes[indices],
    )
    low.launch(kernel, x, indices, y)


def gather_nd(low: Lowering, k: Scheduled) -> None:
    x, indices, y = k.args
    batch = integer(k, "batch_dims", 0)
    shape, places = low.shape(x), low.shape(indices)
    depth = places[-1]
    kernel = gather_nd_kernel(
        math.prod(shape[:batch]),
        math.prod(places[batch:-1]),
        shape[batch : batch + depth],
        math.prod(shape[batch + depth :]),
        dtype=low.dtypes[x],
        y_dtype=low.dtypes[y],
        index=low.dtypes[indices],
    )
    low.launch(kernel, x, indices, y)


def one_hot(low: Lowering, k: Scheduled) -> None:
    indices, values, y = k.args
    axis = integer(k, "axis", 0)
    shape = low.shape(y)
    kernel = one_hot_kernel(
        math.prod(shape[:axis]),
        shape[axis],
        math.prod(shape[axis + 1 :]),
        index=low.dtypes[indices],
        dtype=low.dtypes[values],
        y_dtype=low.dtypes[y],
    )
    low.launch(kernel, indices, values, y)
