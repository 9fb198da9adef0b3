# SPDX-License-Identifier: Apache-2.0
"""conv2d, first layers and matrix products on the GPU: how a shape becomes kernel instances and packed weights."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reefd.resource.schema import ITEM_SIZES

from .dtypes import CTYPES
from .instance import Kernel, Value, ceil_div

# Of a slow compute unit, with tensor cores and without.
_PERIOD_CLOCKS, _SCALAR_PERIOD_CLOCKS = 3000, 6000  # between two check points
_SHORT_CLOCKS, _SCALAR_SHORT_CLOCKS = 10_000, 12_500  # of a block without any but its first
_LEAST_CLOCKS = 350  # of a k-tile: its loads and barrier
_UNITS = 100  # that share out a grid, about; a unit holds _UNIT_THREADS and _UNIT_SHARED bytes
_UNIT_THREADS, _UNIT_REGISTERS, _UNIT_SHARED = 2048, 65536, 227 << 10


class ConvShape(NamedTuple):
    """One conv2d with its epilogue. Channels and outputs are those of one group."""

    n: int
    h: int
    w: int
    c: int
    o: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    dtype: str = "float32"  # of weights and arithmetic operands
    x_dtype: str = ""  # of the feature map read; "" = dtype
    y_dtype: str = ""
    x_nchw: bool = False
    y_nchw: bool = False
    x_pitch: int = 0  # channels between two pixels of x; 0 = dense
    y_pitch: int = 0
    bias: bool = False
    residual: int = 0  # channels of the residual; 0 = none
    residual_pitch: int = 0
    prelu: bool = False
    activation: str = "none"
    activation_first: bool = False
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def out_hw(self) -> tuple[int, int]:
        top, left, bottom, right = self.pads
        extent = [self.dilations[i] * (self.kernel[i] - 1) + 1 for i in range(2)]
        return (
            (self.h + top + bottom - extent[0]) // self.strides[0] + 1,
            (self.w + left + right - extent[1]) // self.strides[1] + 1,
        )

    def window_constants(self) -> dict[str, Value]:
        """What a kernel's source says of the window."""
        return {
            "KH": self.kernel[0],
            "KW": self.kernel[1],
            "SH": self.strides[0],
            "SW": self.strides[1],
            "PT": self.pads[0],
            "PL": self.pads[1],
            "DH": self.dilations[0],
            "DW": self.dilations[1],
        }

    def end_constants(self, residual_pitch: int) -> dict[str, Value]:
        """What a kernel's source says of the epilogue; the pitch in channels."""
        return {
            "BIAS": self.bias,
            "RESIDUAL": self.residual > 0,
            "R_CHANNELS": self.residual,
            "R_PITCH": residual_pitch,
            "PRELU": self.prelu,
            "ACTIVATION": f"Activation::{self.activation}",
            "ACTIVATION_FIRST": self.activation_first,
            "ALPHA": float(self.alpha),
            "BETA": float(self.beta),
        }

    @property
    def depth(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.c

    @property
    def pixels(self) -> int:
        return self.n * self.out_hw[0] * self.out_hw[1]

    @property
    def whole_chunks(self) -> bool:
        """Whether outputs, and what is added to them, are read and written 16 bytes at a time."""
        chunk = 16 // ITEM_SIZES[self.y_dtype or self.dtype]
        counts = (self.o, self.y_pitch, self.residual, self.residual_pitch)
        return not self.y_nchw and all(count % chunk == 0 for count in counts)

    @property
    def macs(self) -> int:
        return self.pixels * self.o * self.groups * self.depth


class Tile(NamedTuple):
    """How a conv is cut. down x across: warps with tensor cores, rows x columns of a thread without."""

    bm: int
    bn: int
    bk: int
    down: int
    across: int
    slices: int = 1
    stages: int = 3
    cluster: int = 1
    parts: int = 1
    tensor_cores: bool = False

    @property
    def threads(self) -> int:
        if self.tensor_cores:
            return 32 * self.down * self.across * self.slices
        return (self.bm // self.down) * (self.bn // self.across) * self.slices

    def shared(self, chunk: int) -> int:
        """Bytes of shared memory, for `chunk` elements in 16 bytes: the pipeline, and later the sums in its place."""
        pipeline = self.stages * (self.bm + self.bn) * (self.bk // chunk) * 16
        return 128 + max(pipeline, self.slices * self.bm * (self.bn + 8) * 4)

    def at_once(self, chunk: int) -> int:
        """Blocks that a compute unit may hold at once, at most: a thread has more registers than its sums take."""
        registers = self.bm * self.bn * self.slices // self.threads + 32
        return max(1, min(_UNIT_REGISTERS // (self.threads * registers), _by_memory(self.shared(chunk))))


def conv_kernels(shape: ConvShape, tile: Tile) -> list[Kernel]:
    """The instances that compute `shape` with `tile`: one, or two when k is cut into parts through a workspace.

    Arguments of the first: x, w, bias, residual, slope, y (the workspace, float [parts][pixels][channels], when there
    are parts); of the second: the workspace, nothing, bias, residual, slope, y.
    """
    oh, ow = shape.out_hw
    x_dtype, y_dtype = shape.x_dtype or shape.dtype, shape.y_dtype or shape.dtype
    chunk = 16 // ITEM_SIZES[shape.dtype]
    channels = shape.o * shape.groups
    x_pitch, y_pitch = shape.x_pitch or shape.c * shape.groups, shape.y_pitch or channels
    residual_pitch = shape.residual_pitch or shape.residual
    gather = bool(shape.x_nchw or x_dtype != shape.dtype or shape.c % chunk or x_pitch % chunk)
    y_wide = shape.whole_chunks
    if tile.cluster > 1 and not y_wide:
        raise ValueError("a cluster needs whole chunks of outputs")
    if tile.cluster > 1 and tile.parts > 1:
        raise ValueError("k is cut by clusters or by parts, not by both")
    row_tiles, column_tiles = ceil_div(shape.pixels, tile.bm), ceil_div(shape.o, tile.bn)
    k_tiles = ceil_div(shape.depth, tile.bk)
    if k_tiles < tile.cluster * tile.parts:
        raise ValueError("fewer k-tiles than shares")
    output: dict[str, Value] = {
        "Out": CTYPES[y_dtype],
        "N": shape.n,
        "OH": oh,
        "OW": ow,
        "O": shape.o,
        "GROUPS": shape.groups,
        "Y_PITCH": y_pitch,
        "Y_NCHW": shape.y_nchw,
        "Y_WIDE": y_wide,
        **shape.end_constants(residual_pitch),
        "PARTS": tile.parts,
    }
    constants: dict[str, Value] = {
        **output,
        "T": CTYPES[shape.dtype],
        "In": CTYPES[x_dtype],
        "H": shape.h,
        "W": shape.w,
        "C": shape.c,
        **shape.window_constants(),
        "X_PITCH": x_pitch,
        "X_NCHW": shape.x_nchw,
        "GATHER": gather,
        "BM": tile.bm,
        "BN": tile.bn,
        "BK": tile.bk,
        "SLICES": tile.slices,
        "STAGES": tile.stages,
        "TENSOR_CORES": tile.tensor_cores,
        ("WM" if tile.tensor_cores else "TM"): tile.down,
        ("WN" if tile.tensor_cores else "TN"): tile.across,
    }
    shared = tile.shared(chunk)
    blocks = shape.groups * row_tiles * column_tiles * tile.parts * tile.cluster
    constants["PERIOD"] = _check_period(tile, ceil_div(k_tiles, tile.cluster * tile.parts), blocks, shared)
    kernels = [
        Kernel("Conv", "conv.cuh", constants, blocks, tile.threads, tile.cluster, shared, _resident(tile, shared))
    ]
    if tile.parts > 1:
        items = shape.pixels * channels // (16 // ITEM_SIZES[y_dtype] if y_wide else 1)
        kernels.append(Kernel("ConvReduce", "conv.cuh", output, ceil_div(items, 256), 256, 1, 128))
    return kernels


def _check_period(tile: Tile, share: int, blocks: int, shared: int) -> int:
    """k-tiles between two check points of a block that computes `share` of them: about two microseconds of a slow
    compute unit with tensor cores, four of scalar arithmetic.

    At every k-tile the epoch's load, which takes longer than a small tile, would be waited for. A short block looks at
    its start only: a look in the loop keeps the compiler from unrolling it, and is acted upon a period later. Short is
    what is short beside the other blocks of its compute unit. Of scalar arithmetic, where looks in the loops of
    ResNet-50 cost 1.06 for 1.03, it is what is short alone.
    """
    clocks = tile.bm * tile.bn * tile.bk / (1024 if tile.tensor_cores else 64)
    if tile.tensor_cores:
        beside = min(ceil_div(blocks, _UNITS), _UNIT_THREADS // tile.threads, _by_memory(shared))
        short = share * max(clocks * beside, _LEAST_CLOCKS) <= _SHORT_CLOCKS
    else:
        short = share * clocks <= _SCALAR_SHORT_CLOCKS
    if short:
        return share
    return max(1, min(16, round((_PERIOD_CLOCKS if tile.tensor_cores else _SCALAR_PERIOD_CLOCKS) / clocks)))


def _resident(tile: Tile, shared: int) -> int:
    """Blocks on one compute unit that the compiler must leave registers for in the preemptible form.

    Left alone it gives a large scalar tile half as many registers again as in the plain form, and a block less fits.
    For smaller tiles the bound would do the opposite, since it also says how many registers may be used.
    """
    registers = ceil_div(tile.down * tile.across + 4 * (tile.down + tile.across) + 72, 8) * 8
    if tile.tensor_cores or registers < 128:
        return 1
    return max(1, min(_UNIT_REGISTERS // (tile.threads * registers), _by_memory(shared)))


def _by_memory(shared: int) -> int:
    """Blocks for which a compute unit has the shared memory; each takes a kilobyte more than it asks for."""
    return _UNIT_SHARED // (shared + 1024)


def pack_conv_weights(w: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """[O, C/g, KH, KW] as the kernels read it: [O][KH][KW][C/g] with each row padded to whole 16-byte chunks."""
    rows = w.transpose(0, 2, 3, 1).reshape(w.shape[0], -1)
    chunk = 16 // ITEM_SIZES[dtype]
    depth = rows.shape[1]
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, ceil_div(depth, chunk) * chunk - depth))).astype(dtype))
