# SPDX-License-Identifier: Apache-2.0
"""Operators that make one value of several, on the GPU: pool2d, reduce, softmax, layer_norm; and resize2d."""

import math
from typing import Any

from reefd.resource.schema import Kernel as Scheduled

from ..rows import layer_norm_kernel, resize_kernel, softmax_kernel
from ..simple import pool_kernel
from .state import LowerError, Lowering, named_arguments


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
    shape, axes = low.shape(x), k.attributes["axes"]
    if k.attributes["function"] != "mean" or len(shape) != 4 or axes != [1, 2]:
        raise LowerError("only the mean over height and width")
    n, h, w, c = shape
    dtype = low.float_of(x, y)
    kernel = pool_kernel(n, h, w, c, mode="average", kernel=(h, w), dtype=dtype)
    low.launch(kernel, low.read(x, dtype), low.write(y, dtype))


def softmax(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    shape = low.shape(x)
    axis = int(k.attributes.get("axis", -1)) % len(shape)  # type: ignore[arg-type]
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
