# SPDX-License-Identifier: Apache-2.0
"""Kernels for any type and any axes, which networks seldom wait for: reductions, scans, batched products."""

import math
from collections.abc import Sequence

import numpy as np

from .dtypes import CTYPES, computed
from .instance import HEADER_BYTES, Kernel, Value, ceil_div
from .shapes import broadcast_strides, dense_strides, merge, numbered

_THREADS = 128
_RANK = 4


def reduce_kernel(
    shape: Sequence[int], axes: Sequence[int], *, function: str, dtype: str = "float32", y_dtype: str = ""
) -> Kernel:
    """sum, mean, max, min, prod, sum_abs or sum_square over `axes`. args: x, y. ValueError: too many axes apart."""
    strides = dense_strides(shape)
    kept = [d for d in range(len(shape)) if d not in axes]
    dims, (outer,) = merge([shape[d] for d in kept] or [1], [[strides[d] for d in kept] or [1]], _RANK)
    counts, (inner,) = merge([shape[d] for d in axes] or [1], [[strides[d] for d in axes] or [1]], _RANK)
    lanes = 1
    while lanes < _THREADS and lanes * 4 < math.prod(counts):
        lanes *= 2
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Out": CTYPES[y_dtype or dtype],
        "Computed": computed(dtype),
        "FUNCTION": f"Reduction::{function}",
        "LANES": lanes,
        **numbered("K", dims),
        **numbered("XK", outer),
        **numbered("R", counts),
        **numbered("XR", inner),
    }
    blocks = ceil_div(math.prod(dims), _THREADS // lanes)
    return Kernel("Reduce", "reduce.cuh", constants, blocks, _THREADS, 1, HEADER_BYTES + _THREADS * 8)


def arg_reduce_kernel(outer: int, extent: int, inner: int, *, largest: bool, last: bool, dtype: str) -> Kernel:
    """The place of the largest or smallest along the middle of [outer, extent, inner]. args: x, y (int64)."""
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Computed": computed(dtype),
        "OUTER": outer,
        "EXTENT": extent,
        "INNER": inner,
        "LARGEST": largest,
        "LAST": last,
    }
    blocks = ceil_div(outer * inner, _THREADS)
    return Kernel("ArgReduce", "reduce.cuh", constants, blocks, _THREADS, 1, HEADER_BYTES)


def topk_kernel(lines: int, extent: int, count: int, *, largest: bool, dtype: str, y_dtype: str = "") -> Kernel:
    """The largest or smallest along the last axis, in order. args: x, values, places (int64)."""
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Out": CTYPES[y_dtype or dtype],
        "Computed": computed(dtype),
        "EXTENT": extent,
        "COUNT": count,
        "LARGEST": largest,
    }
    return Kernel("TopK", "reduce.cuh", constants, lines, _THREADS, 1, HEADER_BYTES)


def scan_kernel(
    outer: int,
    extent: int,
    inner: int,
    *,
    product: bool,
    reverse: bool,
    exclusive: bool,
    dtype: str,
    y_dtype: str = "",
) -> Kernel:
    """Running sums or products along the middle of [outer, extent, inner]. args: x, y."""
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Out": CTYPES[y_dtype or dtype],
        "Computed": computed(dtype),
        "OUTER": outer,
        "EXTENT": extent,
        "INNER": inner,
        "PRODUCT": product,
        "REVERSE": reverse,
        "EXCLUSIVE": exclusive,
    }
    return Kernel("Scan", "reduce.cuh", constants, ceil_div(outer * inner, _THREADS), _THREADS, 1, HEADER_BYTES)


def batched_kernel(
    a: Sequence[int],
    b: Sequence[int],
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    bias: bool = False,
    residual: bool = False,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    dtypes: tuple[str, str] = ("float32", "float32"),
    y_dtype: str = "",
) -> Kernel:
    """a @ b over the last two axes, which `trans_a` and `trans_b` exchange. args: a, b, bias, residual, y; a residual
    has y's type. ValueError: more than three leading axes that do not join."""
    m, depth = (a[-1], a[-2]) if trans_a else (a[-2], a[-1])
    n = b[-2] if trans_b else b[-1]
    lead = np.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]))
    steps = [
        [stride * operand[-1] * operand[-2] for stride in broadcast_strides(operand[:-2], lead)] for operand in (a, b)
    ]
    dims, strides = merge(lead or (1,), [step or [0] for step in steps], 3)
    y_dtype = y_dtype or dtypes[0]
    constants: dict[str, Value] = {
        "A": CTYPES[dtypes[0]],
        "B": CTYPES[dtypes[1]],
        "R": CTYPES[y_dtype],
        "Out": CTYPES[y_dtype],
        "Computed": computed(*dtypes),
        "M": m,
        "N": n,
        "DEPTH": depth,
        **numbered("D", dims),
        **numbered("A", strides[0]),
        **numbered("B", strides[1]),
        "AM": 1 if trans_a else depth,
        "AK": m if trans_a else 1,
        "BK": 1 if trans_b else n,
        "BN": depth if trans_b else 1,
        "BIAS": bias,
        "RESIDUAL": residual,
        "ACTIVATION": f"Activation::{activation}",
        "ALPHA": float(alpha),
        "BETA": float(beta),
    }
    blocks = math.prod(dims) * ceil_div(m, 32) * ceil_div(n, 32)
    return Kernel("Batched", "batched.cuh", constants, blocks, 256, 1, HEADER_BYTES + 2 * 32 * 33 * 8)
