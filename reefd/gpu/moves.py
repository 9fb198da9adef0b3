# SPDX-License-Identifier: Apache-2.0
"""Kernels that move elements: strided copies (transpose, concat, slice, expand, pad), and gathers."""

import math
import struct
from collections.abc import Sequence

from .dtypes import CTYPES
from .elementwise import items_each
from .instance import HEADER_BYTES, Kernel, Value, ceil_div, elements_at_once
from .shapes import dense_strides, merge, numbered

_THREADS = 128
_RANK = 6


def copy_kernel(
    shape: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    *,
    x_offset: int = 0,
    y_offset: int = 0,
    begins: Sequence[int] | None = None,
    extents: Sequence[int] | None = None,
    gaps: Sequence[int] | None = None,
    outside: str = "none",
    fill: float = 0.0,
    dtype: str = "float32",
    x_dtype: str = "",
) -> Kernel:
    """Copies a region of `shape` between strided layouts (elements). args: x, y.

    With `outside`, index i of a dimension reads x at (i - begins[d]) / (gaps[d] + 1), which exists in [0, extents[d]).
    """
    begin, extent, gap = list(begins or [0] * len(shape)), list(extents or shape), list(gaps or [0] * len(shape))
    if outside == "none":
        dims, strides = merge(shape, [list(x_strides), list(y_strides)], _RANK)
        begin, extent, gap = [0] * _RANK, list(dims), [0] * _RANK
    else:
        lead = _RANK - len(shape)
        if lead < 0:
            raise ValueError(f"more than {_RANK} dimensions")
        dims = [1] * lead + list(shape)
        strides = [[0] * lead + list(x_strides), [0] * lead + list(y_strides)]
        begin, extent, gap = [0] * lead + begin, [1] * lead + extent, [0] * lead + gap
    source = x_dtype or dtype
    same = source == dtype and outside == "none" and strides[0][5] == 1 and strides[1][5] == 1
    inner = (s for operand in strides for s in operand[:5])
    wide = elements_at_once(dtype, dims[5], x_offset, y_offset, *inner) if same else 1
    items = math.prod(dims) // wide
    each = items_each(items)
    constants: dict[str, Value] = {
        "In": CTYPES[source],
        "Out": CTYPES[dtype],
        "X_OFFSET": x_offset,
        "Y_OFFSET": y_offset,
        "OUTSIDE": f"Outside::{outside}",
        "FILL_BITS": _float_bits(fill),
        "WIDE": wide,
        "EACH": each,
        **numbered("D", dims),
        **numbered("E", extent),
        **numbered("B", begin),
        **numbered("G", [g + 1 for g in gap]),
        **numbered("XS", strides[0]),
        **numbered("YS", strides[1]),
    }
    return Kernel("Copy", "layout.cuh", constants, ceil_div(items, _THREADS * each), _THREADS, 1, HEADER_BYTES)


def _float_bits(value: float) -> int:
    """The bits of the nearest float, as a signed integer: a constant may be infinite. What a float cannot hold is
    infinite too."""
    try:
        return int(struct.unpack("<i", struct.pack("<f", value))[0])
    except OverflowError:
        return int(struct.unpack("<i", struct.pack("<f", math.copysign(math.inf, value)))[0])


def gather_kernel(
    outer: int, extent: int, inner: int, indices: int, *, dtype: str, y_dtype: str = "", index: str = "int64"
) -> Kernel:
    """x [outer, extent, inner] at the places that the indices name: y [outer, indices, inner]. args: x, indices, y."""
    y_dtype = y_dtype or dtype
    wide = elements_at_once(dtype, inner) if dtype == y_dtype else 1
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Out": CTYPES[y_dtype],
        "Index": CTYPES[index],
        "OUTER": outer,
        "EXTENT": extent,
        "INNER": inner,
        "INDICES": indices,
        "WIDE": wide,
    }
    blocks = ceil_div(outer * indices * (inner // wide), _THREADS)
    return Kernel("Gather", "gather.cuh", constants, blocks, _THREADS, 1, HEADER_BYTES)


def gather_elements_kernel(
    x: Sequence[int], y: Sequence[int], axis: int, *, dtype: str, y_dtype: str = "", index: str = "int64"
) -> Kernel:
    """y has the shape of the indices; each replaces its own place along `axis`. args: x, indices, y."""
    lead = _RANK - len(x)
    if lead < 0:
        raise ValueError(f"more than {_RANK} dimensions")
    strides = dense_strides(x)
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Out": CTYPES[y_dtype or dtype],
        "Index": CTYPES[index],
        "EXTENT": x[axis],
        "AXIS_STRIDE": strides[axis],
        **numbered("D", [1] * lead + list(y)),
        **numbered("XS", [0] * lead + [0 if d == axis else s for d, s in enumerate(strides)]),
    }
    return Kernel(
        "GatherElements", "gather.cuh", constants, ceil_div(math.prod(y), _THREADS), _THREADS, 1, HEADER_BYTES
    )


def gather_nd_kernel(
    batch: int, places: int, extents: Sequence[int], inner: int, *, dtype: str, y_dtype: str = "", index: str = "int64"
) -> Kernel:
    """Each place names an index into every one of `extents`, and so `inner` elements. args: x, indices, y."""
    if not 1 <= len(extents) <= _RANK:
        raise ValueError(f"indices into {len(extents)} axes; 1 to {_RANK}")
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Out": CTYPES[y_dtype or dtype],
        "Index": CTYPES[index],
        "BATCH": batch,
        "PLACES": places,
        "DEPTH": len(extents),
        "INNER": inner,
        **numbered("E", [*extents, *[1] * (_RANK - len(extents))]),
    }
    blocks = ceil_div(batch * places * inner, _THREADS)
    return Kernel("GatherNd", "gather.cuh", constants, blocks, _THREADS, 1, HEADER_BYTES)


def one_hot_kernel(outer: int, depth: int, inner: int, *, index: str, dtype: str, y_dtype: str = "") -> Kernel:
    """y [outer, depth, inner] from indices [outer, inner] and the two values, off and on. args: indices, values, y."""
    constants: dict[str, Value] = {
        "In": CTYPES[dtype],
        "Out": CTYPES[y_dtype or dtype],
        "Index": CTYPES[index],
        "OUTER": outer,
        "DEPTH": depth,
        "INNER": inner,
    }
    return Kernel(
        "OneHot", "gather.cuh", constants, ceil_div(outer * depth * inner, _THREADS), _THREADS, 1, HEADER_BYTES
    )
