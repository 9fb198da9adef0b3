# SPDX-License-Identifier: Apache-2.0
"""From a compiled model's schedule to GPU kernels: one function for each operator of kernels/README.md.

In half precision everything in the arena is stored as halves; inputs and outputs keep the types that clients see.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reefd.resource.schema import Kernel as Scheduled
from reefd.resource.schema import ModelFile, Storage

from .conv import ConvShape, Tile, conv_kernels, pack_conv_weights
from .instance import Kernel
from .rows import resize_kernel
from .simple import (
    binary_kernel,
    copy_kernel,
    dense_strides,
    depthwise_kernel,
    gemv_kernel,
    pack_depthwise_weights,
    pool_kernel,
    unary_kernel,
)
from .target import Target
from .tiles import candidate_tiles

Array = NDArray[Any]


class LowerError(Exception):
    """A kernel instance that the GPU kernels cannot compute. The message names it and the reason."""


class Workspace(NamedTuple):
    """Bytes that only the kernels of one instance use."""

    bytes: int


class Launch(NamedTuple):
    """A kernel and its arguments: a storage's index, a constant's name, a workspace, or nothing."""

    kernel: Kernel
    args: list[int | str | Workspace | None]


class Lowered(NamedTuple):
    """A model for one target. `dtypes` and `places` say what each storage holds and where.

    A place is (memory, byte offset): memory is "arena", or the index of the input, output or weight storage.
    """

    launches: list[Launch]
    constants: dict[str, Array]
    dtypes: list[str]
    places: list[tuple[str | int, int]]


class _Lowering:
    def __init__(self, model: ModelFile, weights: Mapping[str, Array], target: Target, dtype: str) -> None:
        self.model, self.weights, self.target, self.half = model, weights, target, dtype == "float16"
        self.constants: dict[str, Array] = {}
        self.dtypes = [self._dtype(storage) for storage in model.storage]
        self.tiles: dict[ConvShape, Tile] = {}
        self.known: Mapping[ConvShape, Tile] = {}

    def _dtype(self, storage: Storage) -> str:
        narrow = self.half and storage.kind == "arena" and storage.stype == "float32"
        return "float16" if narrow else storage.stype

    def place(self, index: int) -> tuple[str | int, int]:
        storage = self.model.storage[index]
        if storage.base >= 0:
            memory, start = self.place(storage.base)
            narrowed = self.dtypes[index] != storage.stype
            return memory, start + (storage.offset // 2 if narrowed else storage.offset)
        return ("arena", storage.offset) if storage.kind == "arena" else (index, 0)

    def constant(self, name: str, value: Array) -> str:
        self.constants.setdefault(name, np.ascontiguousarray(value))
        return name

    def weight(self, index: int) -> Array:
        storage = self.model.storage[index]
        base = self.model.storage[storage.base] if storage.base >= 0 else storage
        if storage.kind != "weight":
            raise LowerError(f"{storage.name!r} must be a constant")
        return self.weights[base.name].reshape(storage.shape)

    def shape(self, index: int) -> list[int]:
        return self.model.storage[index].shape

    def tile(self, shape: ConvShape) -> Tile:
        if shape not in self.tiles:
            tiles = candidate_tiles(shape, self.target)
            if not tiles:
                raise LowerError("no tile fits this shape")
            known = self.known.get(shape)
            self.tiles[shape] = known if known in tiles else tiles[0]
        return self.tiles[shape]


def _activation(attributes: Mapping[str, Any]) -> dict[str, Any]:
    name = str(attributes.get("activation", "none"))
    given = {"alpha": float(attributes.get("alpha", 0.0)), "beta": float(attributes.get("beta", 0.0))}
    return {"activation": "none" if name == "prelu" else name, **given}


def _conv(low: _Lowering, k: Scheduled) -> list[Launch]:
    a = k.attributes
    depthwise = k.op == "depthwise_conv2d"
    names = ["x", "w", *(n for n in ("bias", "residual", "prelu") if a.get(n) or (n == a.get("activation"))), "y"]
    at = dict(zip(names, k.args, strict=True))
    x, y, w = at["x"], at["y"], low.weight(at["w"])
    group = int(a.get("group", 1))  # type: ignore[arg-type]
    nchw_in, nchw_out = a.get("input_layout") == "nchw", a.get("output_layout") == "nchw"
    n, h, width, c = low.shape(x) if not nchw_in else [low.shape(x)[i] for i in (0, 2, 3, 1)]
    o = w.shape[0]
    residual = low.shape(at["residual"])[-1] if "residual" in at else 0
    shape = ConvShape(
        n,
        h,
        width,
        c // group,
        o // group,
        (w.shape[2], w.shape[3]),
        tuple(a.get("strides", (1, 1))),  # type: ignore[arg-type]
        tuple(a.get("pads", (0, 0, 0, 0))),  # type: ignore[arg-type]
        tuple(a.get("dilations", (1, 1))),  # type: ignore[arg-type]
        group,
        "float16" if low.half else "float32",
        low.dtypes[x],
        low.dtypes[y],
        nchw_in,
        nchw_out,
        bias="bias" in at,
        residual=residual,
        prelu="prelu" in at,
        activation_first=bool(a.get("activation_first", 0)),
        **_activation(a),
    )
    name = low.model.storage[at["w"]].name
    bias = low.constant(f"{k.name}.bias", low.weight(at["bias"]).astype(np.float32)) if shape.bias else None
    slope = None
    if shape.prelu:
        slope = low.constant(f"{k.name}.slope", np.broadcast_to(low.weight(at["prelu"]).reshape(-1), (o,)))
    if depthwise:
        if not shape.dtype == low.dtypes[x] == low.dtypes[y] or nchw_in or nchw_out:
            raise LowerError("a depthwise convolution reads and writes feature maps only, N, H, W, C and of one type")
        packed = low.constant(f"{name}:depthwise", pack_depthwise_weights(w, shape.dtype))
        return [Launch(depthwise_kernel(shape), [x, packed, bias, at.get("residual"), slope, y])]
    if shape.residual and low.dtypes[at["residual"]] != low.dtypes[y]:
        raise LowerError("a residual has the type of the output")
    packed = low.constant(f"{name}:conv", pack_conv_weights(w, shape.dtype))
    tile = low.tile(shape)
    kernels = conv_kernels(shape, tile)
    if tile.parts == 1:
        return [Launch(kernels[0], [x, packed, bias, at.get("residual"), slope, y])]
    between = Workspace(tile.parts * shape.pixels * o * 4)
    return [
        Launch(kernels[0], [x, packed, None, None, None, between]),
        Launch(kernels[1], [between, None, bias, at.get("residual"), slope, y]),
    ]


def _matmul(low: _Lowering, k: Scheduled) -> list[Launch]:
    a = k.attributes
    names = ["a", "b", *(n for n in ("bias", "residual") if a.get(n)), "y"]
    at = dict(zip(names, k.args, strict=True))
    if a.get("trans_a") or low.model.storage[at["b"]].kind != "weight" or len(low.shape(at["b"])) != 2:
        raise LowerError("only a product with a constant matrix on the right")
    w = low.weight(at["b"]) if a.get("trans_b") else low.weight(at["b"]).T
    o, depth = w.shape
    rows = int(np.prod(low.shape(at["a"]))) // depth
    dtype = "float16" if low.half else "float32"
    packed = low.constant(f"{low.model.storage[at['b']].name}:matmul", pack_conv_weights(w[:, :, None, None], dtype))
    bias = low.constant(f"{k.name}.bias", low.weight(at["bias"]).astype(np.float32)) if "bias" in at else None
    if rows <= 8 and "residual" not in at and low.dtypes[at["a"]] == dtype:
        kernel = gemv_kernel(
            rows, depth, o, dtype=dtype, y_dtype=low.dtypes[at["y"]], bias=bias is not None, **_activation(a)
        )
        return [Launch(kernel, [at["a"], packed, bias, None, None, at["y"]])]
    shape = ConvShape(
        1,
        rows,
        1,
        depth,
        o,
        dtype=dtype,
        x_dtype=low.dtypes[at["a"]],
        y_dtype=low.dtypes[at["y"]],
        bias=bias is not None,
        residual=o if "residual" in at else 0,
        **_activation(a),
    )
    tile = low.tile(shape)._replace(parts=1)
    return [
        Launch(kernel, [at["a"], packed, bias, at.get("residual"), None, at["y"]])
        for kernel in conv_kernels(shape, tile)
    ]


def _pool(low: _Lowering, k: Scheduled) -> list[Launch]:
    a: dict[str, Any] = dict(k.attributes)
    x, y = k.args
    n, h, w, c = low.shape(x)
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
        dtype=_one_type(low, x, y),
    )
    return [Launch(kernel, [x, y])]


def _reduce(low: _Lowering, k: Scheduled) -> list[Launch]:
    x, y = k.args
    shape, axes = low.shape(x), k.attributes["axes"]
    if k.attributes["function"] != "mean" or len(shape) != 4 or axes != [1, 2]:
        raise LowerError("only the mean over height and width")
    n, h, w, c = shape
    return [Launch(pool_kernel(n, h, w, c, mode="average", kernel=(h, w), dtype=_one_type(low, x, y)), [x, y])]


def _affine(low: _Lowering, k: Scheduled) -> list[Launch]:
    x, scale, shift, y = k.args
    channels = low.shape(y)[-1]
    rows = int(np.prod(low.shape(y))) // channels
    kernel = unary_kernel(rows, channels, affine=True, dtype=_one_type(low, x, y), **_activation(k.attributes))
    vectors = [
        low.constant(f"{k.name}.{what}", low.weight(index).astype(np.float32).reshape(-1))
        for what, index in (("scale", scale), ("shift", shift))
    ]
    return [Launch(kernel, [x, *vectors, y])]


def _one_type(low: _Lowering, *args: int) -> str:
    types = {low.dtypes[i] for i in args}
    if len(types) > 1 or not types <= {"float32", "float16"}:
        raise LowerError(f"its tensors must all be float32 or all float16, not {', '.join(sorted(types))}")
    return types.pop()


def _resize(low: _Lowering, k: Scheduled) -> list[Launch]:
    a: dict[str, Any] = dict(k.attributes)
    x, y = k.args
    n, h, w, c = low.shape(x)
    kernel = resize_kernel(
        n,
        h,
        w,
        c,
        (low.shape(y)[1], low.shape(y)[2]),
        mode=a["mode"],
        coordinates=a.get("coordinates", "half_pixel"),
        rounding=str(a.get("rounding", "round_prefer_floor")).removeprefix("round_"),
        dtype=_one_type(low, x, y),
    )
    return [Launch(kernel, [x, y])]


def _copy(low: _Lowering, x: int, y: int, shape: list[int], xs: list[int], ys: list[int], **given: Any) -> Launch:
    return Launch(copy_kernel(shape, xs, ys, dtype=low.dtypes[y], x_dtype=low.dtypes[x], **given), [x, y])


def _transpose(low: _Lowering, k: Scheduled) -> list[Launch]:
    x, y = k.args
    perm: list[int] = list(k.attributes["perm"])  # type: ignore[arg-type]
    strides = dense_strides(low.shape(x))
    shape = low.shape(y)
    return [_copy(low, x, y, shape, [strides[p] for p in perm], dense_strides(shape))]


def _concat(low: _Lowering, k: Scheduled) -> list[Launch]:
    *sources, y = k.args
    axis = int(k.attributes["axis"])  # type: ignore[arg-type]
    strides, launches, start = dense_strides(low.shape(y)), [], 0
    for x in sources:
        shape = low.shape(x)
        launches.append(_copy(low, x, y, shape, dense_strides(shape), strides, y_offset=start * strides[axis]))
        start += shape[axis]
    return launches


def _slice(low: _Lowering, k: Scheduled) -> list[Launch]:
    x, y = k.args
    starts: list[int] = list(k.attributes["starts"])  # type: ignore[arg-type]
    steps: list[int] = list(k.attributes["steps"])  # type: ignore[arg-type]
    strides, shape = dense_strides(low.shape(x)), low.shape(y)
    first = sum(s * stride for s, stride in zip(starts, strides, strict=True))
    stepped = [s * stride for s, stride in zip(steps, strides, strict=True)]
    return [_copy(low, x, y, shape, stepped, dense_strides(shape), x_offset=first)]


def _expand(low: _Lowering, k: Scheduled) -> list[Launch]:
    x, y = k.args
    shape = low.shape(y)
    padded = [1] * (len(shape) - len(low.shape(x))) + low.shape(x)
    strides = [0 if d == 1 else s for d, s in zip(padded, dense_strides(padded), strict=True)]
    return [_copy(low, x, y, shape, strides, dense_strides(shape))]


def _pad(low: _Lowering, k: Scheduled) -> list[Launch]:
    x, y = k.args
    a: dict[str, Any] = dict(k.attributes)
    mode, shape = str(a.get("mode", "constant")), low.shape(y)
    if mode not in ("constant", "edge", "reflect") or any(a.get("interior", ())):
        raise LowerError(f"pad mode {mode} or interior padding")
    begins = list(a["pads"])[: len(shape)]
    given = {"begins": begins, "extents": low.shape(x), "outside": mode, "fill": float(a.get("value", 0.0))}
    return [_copy(low, x, y, shape, dense_strides(low.shape(x)), dense_strides(shape), **given)]


def _binary(low: _Lowering, k: Scheduled) -> list[Launch]:
    a, b, y = k.args
    function = str(k.attributes["function"])
    kernel = binary_kernel(
        low.shape(a), low.shape(b), function=function, dtype=_one_type(low, a, b, y), **_activation(k.attributes)
    )
    return [Launch(kernel, [a, b, y])]


def _unary(low: _Lowering, k: Scheduled) -> list[Launch]:
    x, y = k.args[0], k.args[-1]
    dtype, channels = _one_type(low, x, y), low.shape(y)[-1]
    rows = int(np.prod(low.shape(y))) // channels
    slope = None
    if prelu := k.attributes.get("activation") == "prelu":
        slope = low.constant(f"{k.name}.slope", np.broadcast_to(low.weight(k.args[1]).reshape(-1), (channels,)))
    kernel = unary_kernel(rows, channels, prelu=prelu, dtype=dtype, **_activation(k.attributes))
    return [Launch(kernel, [x, slope, None, y])]


_OPERATORS: dict[str, Callable[[_Lowering, Scheduled], list[Launch]]] = {
    "conv2d": _conv,
    "depthwise_conv2d": _conv,
    "matmul": _matmul,
    "pool2d": _pool,
    "reduce": _reduce,
    "affine": _affine,
    "resize2d": _resize,
    "transpose": _transpose,
    "concat": _concat,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    "binary": _binary,
    "unary": _unary,
}


def lower_model(
    model: ModelFile,
    weights: Mapping[str, Array],
    target: Target,
    dtype: str = "float32",
    tiles: Mapping[ConvShape, Tile] | None = None,
) -> Lowered:
    """The kernels of a model for a target, in order. `tiles` are what profiling chose. LowerError names a kernel."""
    low = _Lowering(model, weights, target, dtype)
    low.known = tiles or {}
    launches: list[Launch] = []
    for kernel in model.kernels:
        if kernel.op not in _OPERATORS:
            raise LowerError(f"kernel {kernel.name!r}: no GPU kernel computes {kernel.op!r}")
        try:
            launches += _OPERATORS[kernel.op](low, kernel)
        except (LowerError, ValueError) as error:
            raise LowerError(f"kernel {kernel.name!r} ({kernel.op}): {error}") from None
    places = [low.place(index) for index in range(len(model.storage))]
    return Lowered(launches, low.constants, low.dtypes, places)
