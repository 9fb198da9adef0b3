# SPDX-License-Identifier: Apache-2.0
"""unary, affine, binary, where, cast and map on the GPU."""

import math
from collections.abc import Sequence

import numpy as np

from .dtypes import CTYPES, FLOATS, computed
from .instance import HEADER_BYTES, Kernel, Value, ceil_div, elements_at_once
from .shapes import broadcast_strides, merge, numbered

_THREADS = 128
_RANK = 4
_COMPARISONS = ("equal", "less", "less_equal", "greater", "greater_equal")
_LOGICAL = ("and", "or", "xor")


def items_each(items: int, threads: int = _THREADS) -> int:
    """Items a thread: enough blocks to fill a device first, then up to four loads in flight."""
    return next((each for each in (4, 2) if items >= each * threads * 512), 1)


def _wide(dtypes: Sequence[str], *counts: int) -> int:
    """Elements a thread takes together: whole chunks of the narrowest type, where all are floats."""
    if not all(dtype in FLOATS for dtype in dtypes):
        return 1
    return elements_at_once("float16" if "float16" in dtypes else "float32", *counts)


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
    y_dtype: str = "",
    x_pitch: int = 0,
    y_pitch: int = 0,
) -> Kernel:
    """An activation, after x * scale + shift where `affine`. args: x, scale (or slope), shift, y."""
    if not (affine or prelu or x_pitch or y_pitch):  # dense: any row length serves
        rows, c = 1, rows * c
    x_pitch, y_pitch, y_dtype = x_pitch or c, y_pitch or c, y_dtype or dtype
    wide = _wide((dtype, y_dtype), c, x_pitch, y_pitch)
    items = rows * (c // wide)
    each = items_each(items)
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Out": CTYPES[y_dtype],
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
    return Kernel("Unary", "elementwise.cuh", constants, ceil_div(items, _THREADS * each), _THREADS, 1, HEADER_BYTES)


def binary_kernel(
    a: Sequence[int],
    b: Sequence[int],
    *,
    function: str,
    activation: str = "none",
    alpha: float = 0.0,
    beta: float = 0.0,
    dtype: str = "float32",
    b_dtype: str = "",
    y_dtype: str = "",
) -> Kernel:
    """a function b with NumPy's broadcasting. args: a, b, y. ValueError: no kernel computes it."""
    dtypes = (dtype, b_dtype or dtype)
    number = computed(*dtypes)
    y_dtype = y_dtype or ("bool" if function in _COMPARISONS else dtype)
    if number in ("float", "double") and function in ("mod", "fmod", "pow" if number == "double" else ""):
        raise ValueError(f"function {function!r} of the type {number}")
    shape = np.broadcast_shapes(tuple(a), tuple(b))
    dims, strides = merge(shape, [broadcast_strides(a, shape), broadcast_strides(b, shape)], _RANK)
    wide = _wide((*dtypes, y_dtype), dims[3], *(s for operand in strides for s in operand if s != 1))
    items = math.prod(dims) // wide
    each = items_each(items)
    constants: dict[str, Value] = {
        "A": CTYPES["uint8" if dtype == "bool" else dtype],
        "B": CTYPES["uint8" if dtypes[1] == "bool" else dtypes[1]],
        "Out": CTYPES["uint8" if y_dtype == "bool" else y_dtype],
        "Computed": number,
        **numbered("D", dims),
        **numbered("A", strides[0]),
        **numbered("B", strides[1]),
        "FUNCTION": f"Function::{'logical_' if function in _LOGICAL else ''}{function}",
        "ACTIVATION": f"Activation::{activation}",
        "ALPHA": float(alpha),
        "BETA": float(beta),
        "WIDE": wide,
        "EACH": each,
    }
    return Kernel("Binary", "elementwise.cuh", constants, ceil_div(items, _THREADS * each), _THREADS, 1, HEADER_BYTES)


def where_kernel(
    condition: Sequence[int], a: Sequence[int], b: Sequence[int], *, dtypes: tuple[str, str], y_dtype: str
) -> Kernel:
    """condition ? a : b with NumPy's broadcasting. args: condition (bool), a, b, y."""
    shape = np.broadcast_shapes(tuple(condition), tuple(a), tuple(b))
    dims, strides = merge(shape, [broadcast_strides(operand, shape) for operand in (condition, a, b)], _RANK)
    constants: dict[str, Value] = {
        "A": CTYPES[dtypes[0]],
        "B": CTYPES[dtypes[1]],
        "Out": CTYPES[y_dtype],
        "Computed": computed(*dtypes),
        **numbered("D", dims),
        **numbered("S", strides[0]),
        **numbered("A", strides[1]),
        **numbered("B", strides[2]),
    }
    blocks = ceil_div(math.prod(dims), _THREADS)
    return Kernel("Where", "elementwise.cuh", constants, blocks, _THREADS, 1, HEADER_BYTES)


def cast_kernel(count: int, *, dtype: str, y_dtype: str) -> Kernel:
    """Every element in another type, as kernels/README.md says. args: x, y."""
    constants: dict[str, Value] = {"In": CTYPES[dtype], "Out": CTYPES[y_dtype], "COUNT": count}
    return Kernel("Cast", "elementwise.cuh", constants, ceil_div(count, _THREADS), _THREADS, 1, HEADER_BYTES)
