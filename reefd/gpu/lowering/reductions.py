# SPDX-License-Identifier: Apache-2.0
"""Operators that make one value of several, on the GPU: pool2d, reduce, arg_reduce, topk, scan, softmax, layer_norm;
and resize2d."""

import math
from typing import Any

from reefd.resource.schema import Kernel as Scheduled

from ..dtypes import FLOATS
from ..general import arg_reduce_kernel, reduce_kernel, scan_kernel, topk_kernel
from ..rows import layer_norm_kernel, resize_kernel, softmax_kernel
from ..simple import pool_kernel
from .state import Lowering, integer, integers, named_arguments


def pool(low: Lowering, k: Scheduled) -> None:
    a: dict[str, Any] = dict(k.attributes)
    x, y = k.args
    n, h, w, c = low.shape(x)
    dtype = low.float_of(x, y)
    kernel = pool_kernel(
        n,
        h,
        w,
        c,
        mode=a["mode"],
        kernel=tuple(a["kernel"]),
        strides=tuple(a.get("strides", (1, 1))),
        pads=tuple(a.get("pads", (0, 0, 0, 0))),
        dilations=tuple(a.get("dilations", (1, 1))),
        count_include_pad=bool(a.get("count_include_pad", 0)),
        out_hw=(low.shape(y)[1], low.shape(y)[2]),
        dtype=dtype,
    )
    low.launch(kernel, low.read(x, dtype), low.write(y, dtype))


def reduce(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    shape, function = low.shape(x), str(k.attributes["function"])
    axes = integers(k, "axes")
    if function == "mean" and len(shape) == 4 and axes == [1, 2] and low.dtypes[x] in FLOATS:
        n, h, w, c = shape  # of feature maps: pooling reads whole chunks
        dtype = low.float_of(x, y)
        kernel = pool_kernel(n, h, w, c, mode="average", kernel=(h, w), dtype=dtype)
        low.launch(kernel, low.read(x, dtype), low.write(y, dtype))
        return
    low.launch(reduce_kernel(shape, axes, function=function, dtype=low.dtypes[x], y_dtype=low.dtypes[y]), x, y)


def _around(low: Lowering, x: int, axis: int) -> tuple[int, int, int]:
    """The axis between what lies before and after it."""
    shape = low.shape(x)
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def arg_reduce(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    a: dict[str, Any] = dict(k.attributes)
    largest, last = a.get("function", "max") == "max", bool(a.get("last", 0))
    around = _around(low, x, int(a.get("axis", 0)))
    low.launch(arg_reduce_kernel(*around, largest=largest, last=last, dtype=low.dtypes[x]), x, y)


def topk(low: Lowering, k: Scheduled) -> None:
    x, values, places = k.args
    extent, count = low.shape(x)[-1], low.shape(values)[-1]
    largest = bool(k.attributes.get("largest", 1))
    kernel = topk_kernel(
        low.size(x) // extent, extent, count, largest=largest, dtype=low.dtypes[x], y_dtype=low.dtypes[values]
    )
    low.launch(kernel, x, values, places)


def scan(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    a: dict[str, Any] = dict(k.attributes)
    kernel = scan_kernel(
        *_around(low, x, int(a.get("axis", 0))),
        product=a.get("function", "sum") == "prod",
        reverse=bool(a.get("reverse", 0)),
        exclusive=bool(a.get("exclusive", 0)),
        dtype=low.dtypes[x],
        y_dtype=low.dtypes[y],
    )
    low.launch(kernel, x, y)


def softmax(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    shape = low.shape(x)
    axis = integer(k, "axis", -1) % len(shape)
    dtype = low.float_of(x, y)
    kernel = softmax_kernel(
        math.prod(shape[:axis]),
        shape[axis],
        math.prod(shape[axis + 1 :]),
        logarithm=bool(k.attributes.get("log", 0)),
        dtype=dtype,
    )
    low.launch(kernel, low.read(x, dtype), low.write(y, dtype))


def layer_norm(low: Lowering, k: Scheduled) -> None:
    a: dict[str, Any] = dict(k.attributes)
    at = named_arguments(k, ["x"], ["scale", "bias"], ["y"])
    count = low.shape(at["x"])[-1]
    dtype = low.float_of(at["x"], at["y"])
    kernel = layer_norm_kernel(
        low.size(at["x"]) // count,
        count,
        epsilon=float(a["epsilon"]),
        center=bool(a.get("center", 1)),
        scale="scale" in at,
        shift="bias" in at,
        dtype=dtype,
    )
    vectors = [low.vector(f"{k.name}.{what}", at[what]) if what in at else None for what in ("scale", "bias")]
    low.launch(kernel, low.read(at["x"], dtype), *vectors, low.write(at["y"], dtype))


def resize(low: Lowering, k: Scheduled) -> None:
    a: dict[str, Any] = dict(k.attributes)
    x, y = k.args
    n, h, w, c = low.shape(x)
    dtype = low.float_of(x, y)
    kernel = resize_kernel(
        n,
        h,
        w,
        c,
        (low.shape(y)[1], low.shape(y)[2]),
        mode=a["mode"],
        coordinates=a.get("coordinates", "half_pixel"),
        rounding=str(a.get("rounding", "round_prefer_floor")).removeprefix("round_"),
        dtype=dtype,
    )
    low.launch(kernel, low.read(x, dtype), low.write(y, dtype))
