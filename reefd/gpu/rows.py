# SPDX-License-Identifier: Apache-2.0
"""softmax, layer_norm, attention and resize2d on the GPU."""

from .conv import _BYTES, _CTYPE
from .instance import Kernel, Value, ceil_div

_HEADER_BYTES = 128


def _rows(outer: int, count: int, inner: int) -> tuple[dict[str, Value], int, int, int]:
    threads = 256
    lanes = 1
    while lanes < threads and lanes * 4 < count:
        lanes *= 2
    constants: dict[str, Value] = {"OUTER": outer, "COUNT": count, "INNER": inner, "LANES": lanes}
    return constants, ceil_div(outer * inner, threads // lanes), threads, _HEADER_BYTES + threads * 4


def softmax_kernel(
    outer: int, count: int, inner: int = 1, *, logarithm: bool = False, dtype: str = "float32"
) -> Kernel:
    """Over the middle dimension of [outer, count, inner]. args: x, y."""
    constants, blocks, threads, shared = _rows(outer, count, inner)
    constants |= {"T": _CTYPE[dtype], "LOGARITHM": logarithm}
    return Kernel("Softmax", "rows.cuh", constants, blocks, threads, 1, shared)


def layer_norm_kernel(
    rows: int,
    count: int,
    *,
    epsilon: float,
    scale: bool = True,
    shift: bool = True,
    residual: bool = False,
    dtype: str = "float32",
) -> Kernel:
    """Over the last dimension of [rows, count]. args: x, scale, shift, residual, y; scale and shift are float."""
    constants, blocks, threads, shared = _rows(rows, count, 1)
    constants |= {"T": _CTYPE[dtype], "EPSILON": float(epsilon), "SCALE": scale, "SHIFT": shift, "RESIDUAL": residual}
    return Kernel("LayerNorm", "rows.cuh", constants, blocks, threads, 1, shared)


def attention_kernel(
    batch: int,
    queries: int,
    keys: int,
    heads: int,
    head: int,
    *,
    scale: float,
    pitches: tuple[int, int, int] = (0, 0, 0),
    mask_batch: int = 0,
    causal: bool = False,
    dtype: str = "float32",
) -> Kernel:
    """args: q, k, v, mask (float [mask_batch, keys], added to scores), y. Pitches: elements between two tokens."""
    lanes = next((n for n in (8, 4, 2) if head % n == 0), 1)
    threads, key_tile = 128, 32
    tile, pitch = threads // lanes, head + 1
    shared = _HEADER_BYTES + (2 * key_tile * pitch + tile * pitch + tile * (key_tile + 1)) * 4
    q, k, v = (pitch_ or heads * head for pitch_ in pitches)
    constants: dict[str, Value] = {
        "T": _CTYPE[dtype],
        "BATCH": batch,
        "QUERIES": queries,
        "KEYS": keys,
        "HEADS": heads,
        "HEAD": head,
        "LANES": lanes,
        "KEY_TILE": key_tile,
        "Q_PITCH": q,
        "K_PITCH": k,
        "V_PITCH": v,
        "SCALE": float(scale),
        "MASK": mask_batch > 0,
        "MASK_BATCH": mask_batch,
        "CAUSAL": causal,
    }
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
    chunk = 16 // _BYTES[dtype]
    wide = chunk if c % chunk == 0 else 1
    constants: dict[str, Value] = {
        "T": _CTYPE[dtype],
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
        "Resize", "resize.cuh", constants, ceil_div(n * out_hw[0] * out_hw[1] * (c // wide), 128), 128, 1, _HEADER_BYTES
    )
