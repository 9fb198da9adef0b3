# SPDX-License-Identifier: Apache-2.0
"""Pooling, depthwise convolution, matrix-vector products, the transfer of outputs: kernels without tiles to choose."""

import numpy as np
from numpy.typing import NDArray

from .conv import ConvShape
from .dtypes import CTYPES
from .instance import HEADER_BYTES, Kernel, Value, ceil_div, elements_at_once

_THREADS = 128


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
    wide = elements_at_once(dtype, c, x_pitch, y_pitch)
    items, taps = n * oh * ow * (c // wide), kernel[0] * kernel[1]
    spread = 1
    while spread < 32 and taps // spread > 9 and items * spread < 64 * 1024:
        spread *= 2
    threads = 256 if spread > 1 else _THREADS
    shared = HEADER_BYTES + (threads * (wide + 1) * 4 if spread > 1 else 0)
    constants: dict[str, Value] = {
        "T": CTYPES[dtype],
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
        "T": CTYPES[dtype],
        "Out": CTYPES[y_dtype or dtype],
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
        "Gemv", "gemv.cuh", constants, ceil_div(o, threads // lanes), threads, 1, HEADER_BYTES + m * threads * 4
    )


def depthwise_kernel(shape: ConvShape, strip: int = 0) -> Kernel:
    """depthwise_conv2d of shape.groups channels, shape.o outputs for each.

    args: x, w [KH, KW, O], bias, residual, slope, y.
    """
    oh, ow = shape.out_hw
    outputs = shape.groups * shape.o
    x_pitch, y_pitch = shape.x_pitch or shape.groups, shape.y_pitch or outputs
    residual_pitch = shape.residual_pitch or shape.residual
    wide = (
        elements_at_once(shape.dtype, outputs, x_pitch, y_pitch, residual_pitch, shape.residual) if shape.o == 1 else 1
    )
    rows = shape.n * oh * (outputs // wide)
    if not strip:
        strip = next((s for s in (4, 2) if ow >= s and rows * ceil_div(ow, s) >= 40_000), 1)
    constants: dict[str, Value] = {
        "T": CTYPES[shape.dtype],
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
    return Kernel("Depthwise", "depthwise.cuh", constants, blocks, _THREADS, 1, HEADER_BYTES)


def pack_depthwise_weights(w: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """[O, 1, KH, KW] as the kernel reads it: [KH][KW][O]."""
    return np.ascontiguousarray(w[:, 0].transpose(1, 2, 0).astype(dtype))


def transfer_kernel(nbytes: int) -> Kernel:
    """All outputs of a request into the client's memory. args: the word that holds their address, the buffer."""
    chunks, each = ceil_div(nbytes, 16), 4
    constants: dict[str, Value] = {"CHUNKS": chunks, "EACH": each}
    blocks = ceil_div(chunks, _THREADS * each)
    return Kernel("Transfer", "transfer.cuh", constants, blocks, _THREADS, 1, HEADER_BYTES + 8)
