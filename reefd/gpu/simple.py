# SPDX-License-Identifier: Apache-2.0
"""The kernels that need no tuning beyond a choice of width: pooling, depthwise, matrix-vector, element-wise, copies."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .conv import _BYTES, _CTYPE, ConvShape
from .instance import Kernel, Value, ceil_div

_HEADER_BYTES = 128  # the gate's words
_THREADS = 128


def _wide(dtype: str, *counts: int) -> int:
    """How many elements a thread takes at once: a 16-byte chunk where every count is a multiple of it, else one."""
    chunk = 16 // _BYTES[dtype]
    return chunk if all(count % chunk == 0 for count in counts) else 1


def _each(items: int, threads: int = _THREADS) -> int:
    """Items a thread: enough blocks to fill a device first, then up to four loads in flight."""
    return next((each for each in (4, 2) if items >= each * threads * 512), 1)


def pool_kernel(
    n: int,
    h: int,
    w: int,
    c: int,
    *,
    mode: str,
    kernel: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    count_include_pad: bool = False,
    out_hw: tuple[int, int] | None = None,
    dtype: str = "float32",
    x_pitch: int = 0,
    y_pitch: int = 0,
) -> Kernel:
    """pool2d, mode max or average. args: x, y. `out_hw` is given where the size was rounded up."""
    extent = [dilations[i] * (kernel[i] - 1) + 1 for i in range(2)]
    oh, ow = out_hw or (
        (h + pads[0] + pads[2] - extent[0]) // strides[0] + 1,
        (w + pads[1] + pads[3] - extent[1]) // strides[1] + 1,
    )
    x_pitch, y_pitch = x_pitch or c, y_pitch or c
    wide = _wide(dtype, c, x_pitch, y_pitch)
    items, taps = n * oh * ow * (c // wide), kernel[0] * kernel[1]
    spread = 1
    while spread < 32 and taps // spread > 9 and items * spread < 64 * 1024:
        spread *= 2
    threads = 256 if spread > 1 else _THREADS
    shared = _HEADER_BYTES + (threads * (wide + 1) * 4 if spread > 1 else 0)
    constants: dict[str, Value] = {
        "T": _CTYPE[dtype],
        "N": n,
        "H": h,
        "W": w,
        "C": c,
        "OH": oh,
        "OW": ow,
        "KH": kernel[0],
        "KW": kernel[1],
        "SH": strides[0],
        "SW": strides[1],
        "PT": pads[0],
        "PL": pads[1],
        "PB": pads[2],
        "PR": pads[3],
        "DH": dilations[0],
        "DW": dilations[1],
        "MAXIMUM": mode == "max",
        "COUNT_PADDING": count_include_pad,
        "X_PITCH": x_pitch,
        "Y_PITCH": y_pitch,
        "WIDE": wide,
        "SPREAD": spread,
    }
    return Kernel("Pool", "pool.cuh", constants, ceil_div(items, threads // spread), threads, 1, shared)


def gemv_kernel(
    m: int,
    depth: int,
    o: int,
    *,
    dtype: str = "float32",
    y_dtype: str = "",
    bias: bool = False,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    lanes: int = 32,
    threads: int = 256,
) -> Kernel:
    """A matrix product of up to eight rows. args: x [m, depth], w [o, depth] padded to chunks, bias, -, -, y [m, o]."""
    if not 1 <= m <= 8:
        raise ValueError(f"gemv takes 1 to 8 rows, not {m}")
    constants: dict[str, Value] = {
        "T": _CTYPE[dtype],
        "Out": _CTYPE[y_dtype or dtype],
        "M": m,
        "DEPTH": depth,
        "O": o,
        "LANES": lanes,
        "AHEAD": 4,
        "BIAS": bias,
        "ACTIVATION": f"Activation::{activation}",
        "ALPHA": float(alpha),
        "BETA": float(beta),
    }
    return Kernel(
        "Gemv", "gemv.cuh", constants, ceil_div(o, threads // lanes), threads, 1, _HEADER_BYTES + m * threads * 4
    )


def depthwise_kernel(shape: ConvShape, strip: int = 0) -> Kernel:
    """depthwise_conv2d of shape.groups channels, shape.o outputs for each.

    args: x, w [KH, KW, O], bias, residual, slope, y.
    """
    oh, ow = shape.out_hw
    outputs = shape.groups * shape.o
    x_pitch, y_pitch = shape.x_pitch or shape.groups, shape.y_pitch or outputs
    residual_pitch = shape.residual_pitch or shape.residual
    wide = _wide(shape.dtype, outputs, x_pitch, y_pitch, residual_pitch, shape.residual) if shape.o == 1 else 1
    rows = shape.n * oh * (outputs // wide)
    if not strip:
        strip = next((s for s in (4, 2) if ow >= s and rows * ceil_div(ow, s) >= 40_000), 1)
    constants: dict[str, Value] = {
        "T": _CTYPE[shape.dtype],
        "N": shape.n,
        "H": shape.h,
        "W": shape.w,
        "O": outputs,
        "MULTIPLIER": shape.o,
        "OH": oh,
        "OW": ow,
        **shape.window_constants(),
        "X_PITCH": x_pitch,
        "Y_PITCH": y_pitch,
        **shape.end_constants(residual_pitch),
        "WIDE": wide,
        "STRIP": strip,
    }
    blocks = ceil_div(rows * ceil_div(ow, strip), _THREADS)
    return Kernel("Depthwise", "depthwise.cuh", constants, blocks, _THREADS, 1, _HEADER_BYTES)


def pack_depthwise_weights(w: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """[O, 1, KH, KW] as the kernel reads it: [KH][KW][O]."""
    return np.ascontiguousarray(w[:, 0].transpose(1, 2, 0).astype(dtype))


def unary_kernel(
    rows: int,
    c: int,
    *,
    activation: str,
    alpha: float = 0.0,
    beta: float = 0.0,
    affine: bool = False,
    prelu: bool = False,
    dtype: str = "float32",
    x_pitch: int = 0,
    y_pitch: int = 0,
) -> Kernel:
    """An activation, after x * scale + shift where `affine`. args: x, scale (or slope), shift, y."""
    if not (affine or prelu or x_pitch or y_pitch):  # dense: any row length serves
        rows, c = 1, rows * c
    x_pitch, y_pitch = x_pitch or c, y_pitch or c
    wide = _wide(dtype, c, x_pitch, y_pitch)
    items = rows * (c // wide)
    each = _each(items)
    constants: dict[str, Value] = {
        "T": _CTYPE[dtype],
        "ROWS": rows,
        "C": c,
        "X_PITCH": x_pitch,
        "Y_PITCH": y_pitch,
        "AFFINE": affine,
        "PRELU": prelu,
        "ACTIVATION": f"Activation::{activation}",
        "ALPHA": float(alpha),
        "BETA": float(beta),
        "WIDE": wide,
        "EACH": each,
    }
    return Kernel("Unary", "elementwise.cuh", constants, ceil_div(items, _THREADS * each), _THREADS, 1, _HEADER_BYTES)


def binary_kernel(
    a: Sequence[int],
    b: Sequence[int],
    *,
    function: str,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    dtype: str = "float32",
) -> Kernel:
    """a function b with NumPy's broadcasting. args: a, b, y."""
    shape = np.broadcast_shapes(tuple(a), tuple(b))
    dims, strides = _merge(shape, [_broadcast_strides(a, shape), _broadcast_strides(b, shape)], 4)
    wide = _wide(dtype, dims[3], *(s for operand in strides for s in operand if s != 1))
    items = math.prod(dims) // wide
    each = _each(items)
    constants: dict[str, Value] = {
        "T": _CTYPE[dtype],
        **{f"D{i}": d for i, d in enumerate(dims)},
        **{f"A{i}": s for i, s in enumerate(strides[0])},
        **{f"B{i}": s for i, s in enumerate(strides[1])},
        "FUNCTION": f"Function::{function}",
        "ACTIVATION": f"Activation::{activation}",
        "ALPHA": float(alpha),
        "BETA": float(beta),
        "WIDE": wide,
        "EACH": each,
    }
    return Kernel("Binary", "elementwise.cuh", constants, ceil_div(items, _THREADS * each), _THREADS, 1, _HEADER_BYTES)


def copy_kernel(
    shape: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    *,
    x_offset: int = 0,
    y_offset: int = 0,
    begins: Sequence[int] | None = None,
    extents: Sequence[int] | None = None,
    outside: str = "none",
    fill: float = 0.0,
    dtype: str = "float32",
    x_dtype: str = "",
    raw: bool = False,
) -> Kernel:
    """Copies a region of `shape` between strided layouts (elements). args: x, y.

    With `outside`, index i of a dimension reads x at i - begins[d], which exists in [0, extents[d]).
    """
    count = len(shape)
    begin, extent = list(begins or [0] * count), list(extents or shape)
    if outside == "none":
        dims, strides = _merge(shape, [list(x_strides), list(y_strides)], 6)
        begin, extent = [0] * 6, list(dims)
    else:
        lead = 6 - count
        if lead < 0:
            raise ValueError("at most six dimensions")
        dims = [1] * lead + list(shape)
        strides = [[0] * lead + list(x_strides), [0] * lead + list(y_strides)]
        begin, extent = [0] * lead + begin, [1] * lead + extent
    source = x_dtype or dtype
    same = source == dtype and outside == "none" and strides[0][5] == 1 and strides[1][5] == 1
    wide = _wide(dtype, dims[5], x_offset, y_offset, *(s for operand in strides for s in operand[:5])) if same else 1
    items = math.prod(dims) // wide
    each = _each(items)
    constants: dict[str, Value] = {
        "In": _CTYPE[source],
        "Out": _CTYPE[dtype],
        "X_OFFSET": x_offset,
        "Y_OFFSET": y_offset,
        "RAW": raw,
        "OUTSIDE": f"Outside::{outside}",
        "FILL": float(fill),
        "WIDE": wide,
        "EACH": each,
        **{f"D{i}": d for i, d in enumerate(dims)},
        **{f"E{i}": e for i, e in enumerate(extent)},
        **{f"B{i}": b for i, b in enumerate(begin)},
        **{f"XS{i}": s for i, s in enumerate(strides[0])},
        **{f"YS{i}": s for i, s in enumerate(strides[1])},
    }
    return Kernel("Copy", "layout.cuh", constants, ceil_div(items, _THREADS * each), _THREADS, 1, _HEADER_BYTES)


def dense_strides(shape: Sequence[int]) -> list[int]:
    """Row-major strides in elements."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return strides


def _broadcast_strides(operand: Sequence[int], shape: Sequence[int]) -> list[int]:
    padded = [1] * (len(shape) - len(operand)) + list(operand)
    return [0 if d == 1 else s for d, s in zip(padded, dense_strides(padded), strict=True)]


def _merge(shape: Sequence[int], operands: list[list[int]], rank: int) -> tuple[list[int], list[list[int]]]:
    """Joins neighbouring dimensions that every operand walks as one, and pads to `rank` dimensions."""
    dims: list[int] = []
    strides: list[list[int]] = [[] for _ in operands]
    for i, d in enumerate(shape):
        if d == 1:
            continue
        if dims and all(s[-1] == o[i] * d for s, o in zip(strides, operands, strict=True)):
            dims[-1] *= d
            for s, o in zip(strides, operands, strict=True):
                s[-1] = o[i]
        else:
            dims.append(d)
            for s, o in zip(strides, operands, strict=True):
                s.append(o[i])
    if not dims:
        dims, strides = [1], [[1] for _ in operands]
    if len(dims) > rank:
        raise ValueError(f"more than {rank} dimensions after joining: {list(shape)}")
    lead = rank - len(dims)
    return [1] * lead + dims, [[0] * lead + s for s in strides]


def transfer_kernel(nbytes: int) -> Kernel:
    """All outputs of a request into the client's memory. args: the word that holds their address, the buffer."""
    chunks = ceil_div(nbytes, 16)
    each = 4
    constants: dict[str, Value] = {"CHUNKS": chunks, "EACH": each}
    return Kernel("Transfer", "transfer.cuh", constants, ceil_div(chunks, _THREADS * each), _THREADS, 1, _HEADER_BYTES)
