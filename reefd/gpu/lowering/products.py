# SPDX-License-Identifier: Apache-2.0
"""conv2d, depthwise_conv2d, matmul and attention on the GPU."""

import math
from typing import Any

import numpy as np

from reefd.resource.schema import Kernel as Scheduled

from ..conv import ConvShape, conv_kernels, pack_conv_weights
from ..dtypes import FLOATS
from ..general import batched_kernel
from ..instance import Kernel
from ..rows import attention_kernel
from ..shapes import dense_strides
from ..simple import depthwise_kernel, gemv_kernel, pack_depthwise_weights
from .state import Argument, LowerError, Lowering, activation_of, named_arguments


def conv(low: Lowering, k: Scheduled) -> None:
    a: dict[str, Any] = dict(k.attributes)
    at = named_arguments(k, ["x", "w"], ["bias", "residual", "prelu"], ["y"])
    x, y, w = at["x"], at["y"], low.weight(at["w"])
    group = int(a.get("group", 1))
    nchw_in, nchw_out = a.get("input_layout") == "nchw", a.get("output_layout") == "nchw"
    n, h, width, c = low.shape(x) if not nchw_in else [low.shape(x)[i] for i in (0, 2, 3, 1)]
    o = w.shape[0]
    shape = ConvShape(
        n,
        h,
        width,
        c // group,
        o // group,
        (w.shape[2], w.shape[3]),
        tuple(a.get("strides", (1, 1))),
        tuple(a.get("pads", (0, 0, 0, 0))),
        tuple(a.get("dilations", (1, 1))),
        group,
        low.dtype,
        low.dtypes[x],
        low.dtypes[y],
        nchw_in,
        nchw_out,
        bias="bias" in at,
        residual=low.shape(at["residual"])[-1] if "residual" in at else 0,
        prelu="prelu" in at,
        activation_first=bool(a.get("activation_first", 0)),
        **activation_of(a),
    )
    name = low.model.storage[at["w"]].name
    bias = low.vector(f"{k.name}.bias", at["bias"]) if shape.bias else None
    slope = None
    if shape.prelu:
        slope = low.constant(f"{k.name}.slope", np.broadcast_to(low.weight(at["prelu"]).reshape(-1), (o,)))
    if k.op == "depthwise_conv2d":
        if nchw_in or nchw_out:
            raise LowerError("a depthwise convolution reads and writes feature maps N, H, W, C only")
        packed = low.constant(f"{name}:depthwise", pack_depthwise_weights(w, shape.dtype))
        residual = low.read(at["residual"], shape.dtype) if shape.residual else None
        args = [low.read(x, shape.dtype), packed, bias, residual, slope, low.write(y, shape.dtype)]
        low.launch(depthwise_kernel(shape), *args)
        return
    packed = low.constant(f"{name}:conv", pack_conv_weights(w, shape.dtype))
    residual = low.read(at["residual"], low.dtypes[y]) if shape.residual else None
    _product(low, shape, [x, packed, bias, residual, slope, y])


def _product(low: Lowering, shape: ConvShape, args: list[Argument]) -> None:
    """The launches of a convolution or product; args: x, w, bias, residual, slope, y."""
    tile = low.tile(shape)
    kernels = conv_kernels(shape, tile)
    if tile.parts == 1:
        low.launch(kernels[0], *args)
        return
    between = low.workspace(tile.parts * shape.pixels * shape.o * shape.groups * 4)
    low.launch(kernels[0], *args[:2], None, None, None, between)
    low.launch(kernels[1], between, None, *args[2:])


def matmul(low: Lowering, k: Scheduled) -> None:
    a = k.attributes
    at = named_arguments(k, ["a", "b"], ["bias", "residual"], ["y"])
    constant = low.is_weight(at["b"]) and len(low.shape(at["b"])) == 2 and low.dtypes[at["b"]] in FLOATS
    if not constant or a.get("trans_a"):
        batched(low, k)
        return
    w = low.weight(at["b"]) if a.get("trans_b") else low.weight(at["b"]).T
    o, depth = w.shape
    rows = low.size(at["a"]) // depth
    name = low.model.storage[at["b"]].name
    packed = low.constant(f"{name}:matmul", pack_conv_weights(w[:, :, None, None], low.dtype))
    bias = low.vector(f"{k.name}.bias", at["bias"]) if "bias" in at else None
    y_dtype = low.dtypes[at["y"]]
    if rows <= 8 and "residual" not in at:
        x = low.read(at["a"], low.dtype)
        kernel = gemv_kernel(
            rows, depth, o, dtype=low.dtype, y_dtype=y_dtype, bias=bias is not None, **activation_of(a)
        )
        low.launch(kernel, x, packed, bias, None, None, at["y"])
        return
    shape = ConvShape(
        1,
        rows,
        1,
        depth,
        o,
        dtype=low.dtype,
        x_dtype=low.dtypes[at["a"]],
        y_dtype=y_dtype,
        bias=bias is not None,
        residual=o if "residual" in at else 0,
        activation_first=bool(a.get("activation_first", 0)),
        **activation_of(a),
    )
    residual = low.read(at["residual"], y_dtype) if "residual" in at else None
    _product(low, shape, [at["a"], packed, bias, residual, None, at["y"]])


def batched(low: Lowering, k: Scheduled) -> None:
    a = k.attributes
    at = named_arguments(k, ["a", "b"], ["bias", "residual"], ["y"])
    if a.get("activation_first"):
        raise LowerError("an activation before the residual, of a product without a constant matrix")
    y_dtype = low.dtypes[at["y"]]
    kernel = batched_kernel(
        low.shape(at["a"]),
        low.shape(at["b"]),
        trans_a=bool(a.get("trans_a")),
        trans_b=bool(a.get("trans_b")),
        bias="bias" in at,
        residual="residual" in at,
        dtypes=(low.dtypes[at["a"]], low.dtypes[at["b"]]),
        y_dtype=y_dtype,
        **activation_of(a),
    )
    bias = low.vector(f"{k.name}.bias", at["bias"]) if "bias" in at else None
    residual = low.read(at["residual"], y_dtype) if "residual" in at else None
    low.launch(kernel, at["a"], at["b"], bias, residual, at["y"])


def attention(low: Lowering, k: Scheduled) -> None:
    at = named_arguments(k, ["q", "k", "v"], ["mask"], ["y"])
    batch, queries, heads, head = low.shape(at["q"])
    keys, values = low.shape(at["k"])[1], low.shape(at["v"])[3]
    mask, strides = None, None
    if "mask" in at:
        extents = low.shape(at["mask"])
        strides = [0 if d == 1 else s for d, s in zip(extents, dense_strides(extents), strict=True)]
        mask = (strides[0], strides[1], strides[2])
        if extents[3] != keys:
            raise LowerError(f"a mask of {extents[3]} keys for {keys}")
    kernel: Kernel = attention_kernel(
        batch,
        queries,
        keys,
        heads,
        head,
        values,
        scale=float(k.attributes["scale"]),  # type: ignore[arg-type]
        mask=mask,
        dtype=low.dtype,
        target=low.target,
    )
    operands = [low.read(at[name], low.dtype) for name in ("q", "k", "v")]
    added = low.read(at["mask"], low.dtype) if mask is not None else None
    low.launch(kernel, *operands, added, low.write(at["y"], low.dtype))
    assert math.prod(low.shape(at["y"])) == batch * queries * heads * values
