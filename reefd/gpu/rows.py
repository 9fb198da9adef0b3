# SPDX-License-Identifier: Apache-2.0
"""softmax, layer_norm, attention and resize2d on the GPU."""

from .dtypes import CTYPES
from .instance import HEADER_BYTES, Kernel, Value, ceil_div, elements_at_once
from .target import TARGETS, Target


def _rows(outer: int, count: int, inner: int) -> tuple[dict[str, Value], int, int, int]:
    threads = 256
    lanes = 1
    while lanes < threads and lanes * 4 < count:
        lanes *= 2
    constants: dict[str, Value] = {"OUTER": outer, "COUNT": count, "INNER": inner, "LANES": lanes}
    return constants, ceil_div(outer * inner, threads // lanes), threads, HEADER_BYTES + threads * 4


def softmax_kernel(
    outer: int, count: int, inner: int = 1, *, logarithm: bool = False, dtype: str = "float32"
) -> Kernel:
    """Over the middle dimension of [outer, count, inner]. args: x, y."""
    constants, blocks, threads, shared = _rows(outer, count, inner)
    constants |= {"T": CTYPES[dtype], "LOGARITHM": logarithm}
    return Kernel("Softmax", "rows.cuh", constants, blocks, threads, 1, shared)


def layer_norm_kernel(
    rows: int,
    count: int,
    *,
    epsilon: float,
    center: bool = True,
    scale: bool = True,
    shift: bool = True,
    dtype: str = "float32",
) -> Kernel:
    """Over the last dimension of [rows, count]; without `center` the root mean square form. args: x, scale, shift, y;
    scale and shift are float."""
    constants, blocks, threads, shared = _rows(rows, count, 1)
    constants |= {"T": CTYPES[dtype], "EPSILON": float(epsilon), "CENTER": center, "SCALE": scale, "SHIFT": shift}
    return Kernel("LayerNorm", "rows.cuh", constants, blocks, threads, 1, shared)


def attention_kernel(
    batch: int,
    queries: int,
    keys: int,
    heads: int,
    head: int,
    values: int = 0,
    *,
    scale: float,
    mask: tuple[int, int, int] | None = None,
    dtype: str = "float32",
    target: Target = TARGETS["gfx906"],
) -> Kernel:
    """args: q [batch, queries, heads, head], k, v [batch, keys, heads, values], mask, y as q with `values` elements.

    `mask` has the strides (elements) of its batch, head and query axes, 0 where it has one of them. Halves go to tensor
    cores where the target has them and rows of a head are whole products. ValueError: a head is too large for a block's
    memory.
    """
    values = values or head
    strides = mask or (0, 0, 0)
    constants: dict[str, Value] = {
        "BATCH": batch,
        "QUERIES": queries,
        "KEYS": keys,
        "HEADS": heads,
        "HEAD": head,
        "VALUES": values,
        "SCALE": float(scale),
        "MASK": mask is not None,
        "MASK_BATCH": strides[0],
        "MASK_HEAD": strides[1],
        "MASK_QUERY": strides[2],
    }
    if target.tensor_cores and dtype == "float16" and head % 16 == 0 == values % 16 and max(head, values) <= 128:
        # Few warps a block where that makes too few blocks for the device.
        warps = next((n for n in (4, 2) if batch * heads * ceil_div(queries, 16 * n) >= target.units), 1)
        key_tile = 64 if max(head, values) <= 64 else 32
        pitches = head // 8 + 1, values // 8 + 1
        shared = HEADER_BYTES + (16 * warps * pitches[0] + 2 * key_tile * sum(pitches)) * 16
        blocks = batch * heads * ceil_div(queries, 16 * warps)
        constants["KEY_TILE"] = key_tile
        return Kernel("TensorAttention", "tensor_attention.cuh", constants, blocks, 32 * warps, 1, shared)
    lanes = next((n for n in (8, 4, 2) if values % n == 0), 1)
    threads, key_tile = 128, 32
    tile = threads // lanes
    while True:
        shared = HEADER_BYTES + (key_tile * (head + values + 2) + tile * (head + 1) + tile * (key_tile + 1)) * 4
        if shared <= 48 << 10:
            break
        if key_tile > 8:
            key_tile //= 2
        elif threads > 32:
            threads, tile = threads // 2, tile // 2
        else:
            raise ValueError(f"heads of {head} and {values} elements")
    constants |= {"T": CTYPES[dtype], "LANES": lanes, "KEY_TILE": key_tile}
    return Kernel("Attention", "attention.cuh", constants, batch * heads * ceil_div(queries, tile), threads, 1, shared)


def resize_kernel(
    n: int,
    h: int,
    w: int,
    c: int,
    out_hw: tuple[int, int],
    *,
    mode: str,
    coordinates: str,
    rounding: str = "prefer_floor",
    dtype: str = "float32",
) -> Kernel:
    """resize2d, mode nearest or linear, coordinates and rounding as kernels/README.md names them. args: x, y."""
    wide = elements_at_once(dtype, c)
    constants: dict[str, Value] = {
        "T": CTYPES[dtype],
        "N": n,
        "H": h,
        "W": w,
        "C": c,
        "OH": out_hw[0],
        "OW": out_hw[1],
        "LINEAR": mode == "linear",
        "COORDINATES": f"Coordinates::{coordinates}",
        "ROUNDING": f"Rounding::{rounding}",
        "WIDE": wide,
    }
    return Kernel(
        "Resize", "resize.cuh", constants, ceil_div(n * out_hw[0] * out_hw[1] * (c // wide), 128), 128, 1, HEADER_BYTES
    )
