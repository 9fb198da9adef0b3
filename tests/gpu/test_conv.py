# SPDX-License-Identifier: Apache-2.0
"""Convolution kernels in every form against a float64 reference, on the host target."""

import numpy as np
import pytest

from reefd.gpu.conv import ConvShape, Tile, conv_kernels, pack_conv_weights

from .checks import poison, relative_error, run_all, seeded
from .emulator import Array

HALF = {"dtype": "float16"}
MMA = Tile(64, 64, 64, 2, 2, stages=3, tensor_cores=True)
SMALL = Tile(32, 32, 32, 1, 2, slices=2, stages=4, tensor_cores=True)
FFMA = Tile(64, 64, 16, 8, 4, stages=2)
DOT2 = Tile(64, 64, 32, 4, 4, stages=2)

CASES = {
    "mma_3x3_residual_relu": (
        ConvShape(1, 9, 10, 64, 72, (3, 3), (1, 1), (1, 1, 1, 1), **HALF, bias=True, residual=72, activation="relu"),
        MMA,
    ),
    "mma_1x1_sliced": (ConvShape(2, 7, 7, 72, 40, **HALF, bias=True, activation="silu"), SMALL),
    "mma_cluster": (
        ConvShape(1, 7, 7, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), **HALF, bias=True, residual=64, activation="relu"),
        MMA._replace(cluster=4),
    ),
    "mma_cluster_sliced": (
        ConvShape(1, 5, 5, 256, 32, **HALF, residual=16, activation="relu"),
        SMALL._replace(cluster=2, bk=64),
    ),
    "mma_first_layer": (
        ConvShape(
            1,
            21,
            19,
            3,
            24,
            (7, 7),
            (2, 2),
            (3, 3, 3, 3),
            **HALF,
            x_dtype="float32",
            x_nchw=True,
            bias=True,
            activation="relu",
        ),
        SMALL._replace(stages=2),
    ),
    "mma_grouped": (ConvShape(1, 6, 6, 16, 24, (3, 3), (1, 1), (1, 1, 1, 1), groups=3, **HALF, bias=True), SMALL),
    "mma_nchw_out": (ConvShape(1, 6, 6, 16, 18, **HALF, y_dtype="float32", y_nchw=True, bias=True), SMALL),
    "mma_parts": (ConvShape(1, 7, 7, 128, 64, **HALF, bias=True, activation="relu"), SMALL._replace(parts=3)),
    "ffma_3x3_stride_2": (
        ConvShape(1, 13, 11, 28, 68, (3, 3), (2, 2), (0, 1, 1, 0), bias=True, activation="relu"),
        FFMA,
    ),
    "mma_121_taps": (
        ConvShape(1, 23, 21, 3, 16, (11, 11), (4, 4), (2, 2, 2, 2), **HALF, x_dtype="float32", x_nchw=True, bias=True),
        SMALL._replace(stages=2),
    ),
    "ffma_100_taps": (ConvShape(1, 12, 13, 4, 16, (10, 10), (1, 1), (4, 5, 5, 4)), Tile(32, 32, 16, 4, 4, stages=2)),
    "ffma_dilated": (
        ConvShape(1, 12, 12, 16, 16, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), residual=8, activation="hard_swish"),
        Tile(32, 32, 16, 4, 2, slices=2, stages=3),
    ),
    "ffma_cluster": (
        ConvShape(1, 6, 6, 64, 64, bias=True, activation_first=True, residual=64, activation="relu"),
        FFMA._replace(cluster=2, bk=32),
    ),
    "ffma_odd_channels": (
        ConvShape(1, 8, 8, 5, 7, (3, 3), (1, 1), (1, 1, 1, 1), bias=True, prelu=True),
        Tile(32, 32, 16, 4, 4, stages=2),
    ),
    "ffma_matrix": (ConvShape(1, 33, 1, 70, 50, bias=True, activation="gelu"), Tile(32, 32, 16, 4, 4, stages=2)),
    "ffma_parts": (
        ConvShape(1, 7, 7, 64, 32, bias=True, residual=32, activation="relu"),
        FFMA._replace(bn=32, parts=4),
    ),
    "dot2_3x3": (
        ConvShape(
            1, 9, 9, 32, 64, (3, 3), (1, 1), (1, 1, 1, 1), **HALF, bias=True, activation="clip", alpha=0.0, beta=6.0
        ),
        DOT2,
    ),
    # Long enough for check points in the loop.
    "mma_long": (ConvShape(1, 4, 4, 1024, 32, **HALF, bias=True), SMALL),
    "mma_long_cluster": (
        ConvShape(1, 4, 4, 2048, 32, **HALF, residual=32, activation="relu"),
        SMALL._replace(cluster=2),
    ),
    "pitched": (ConvShape(1, 6, 6, 16, 16, x_pitch=24, y_pitch=40, bias=True), Tile(32, 32, 16, 4, 4, stages=2)),
}


def activation(name: str, v: Array, alpha: float, beta: float) -> Array:
    erf = np.vectorize(__import__("math").erf)
    return {
        "none": lambda: v,
        "relu": lambda: np.maximum(v, 0),
        "clip": lambda: np.clip(v, alpha, beta),
        "silu": lambda: v / (1 + np.exp(-v)),
        "hard_swish": lambda: v * np.clip(v / 6 + 0.5, 0, 1),
        "gelu": lambda: 0.5 * v * (1 + erf(v / np.sqrt(2))),
    }[name]()


def reference(
    s: ConvShape, x: Array, w: Array, bias: Array | None, residual: Array | None, slope: Array | None
) -> Array:
    """x [N, H, W, C*g], w [O*g, C, KH, KW] -> [N, OH, OW, O*g] in float64."""
    top, left, bottom, right = s.pads
    oh, ow = s.out_hw
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    y = np.zeros((s.n, oh, ow, s.o * s.groups))
    for g in range(s.groups):
        part, weights = padded[..., g * s.c : (g + 1) * s.c], w[g * s.o : (g + 1) * s.o].astype(np.float64)
        for i in range(s.kernel[0]):
            for j in range(s.kernel[1]):
                a, b = i * s.dilations[0], j * s.dilations[1]
                window = part[
                    :,
                    a : a + (oh - 1) * s.strides[0] + 1 : s.strides[0],
                    b : b + (ow - 1) * s.strides[1] + 1 : s.strides[1],
                ]
                y[..., g * s.o : (g + 1) * s.o] += np.einsum("nhwc,oc->nhwo", window, weights[:, :, i, j])
    y += 0 if bias is None else bias
    extra = np.zeros_like(y)
    if residual is not None:
        extra[..., : residual.shape[-1]] = residual
    y += 0 if s.activation_first else extra
    if slope is not None:
        y = np.where(y >= 0, y, y * slope)
    y = activation(s.activation, y, s.alpha, s.beta)
    return y + extra if s.activation_first else y


@pytest.mark.parametrize("name", CASES)
def test_conv(name: str) -> None:
    s, tile = CASES[name]
    normal = seeded(len(name))
    oh, ow = s.out_hw
    channels, outputs = s.c * s.groups, s.o * s.groups
    w = normal((outputs, s.c, *s.kernel)) / np.sqrt(s.depth)
    w = w.astype(s.dtype).astype(np.float32)
    x = normal((s.n, s.h, s.w, s.x_pitch or channels), s.x_dtype or s.dtype)
    bias = normal(outputs) if s.bias else None
    residual = normal((s.n, oh, ow, s.residual), s.y_dtype or s.dtype) if s.residual else None
    slope = normal(outputs) if s.prelu else None
    y = np.empty((s.n, oh, ow, s.y_pitch or outputs), s.y_dtype or s.dtype)
    given = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if s.x_nchw else x

    kernels = conv_kernels(s, tile)
    if tile.parts > 1:
        workspace = np.empty((tile.parts, s.pixels, outputs), np.float32)
        args = [
            [given, pack_conv_weights(w, s.dtype), None, None, None, workspace],
            [workspace, None, bias, residual, slope, y],
        ]
        written = [workspace, y]
    else:
        args, written = [[given, pack_conv_weights(w, s.dtype), bias, residual, slope, y]], [y]
    run_all(kernels, args, written)

    expected = reference(s, x[..., :channels], w, bias, residual, slope)
    ours = y.reshape(s.n, outputs, oh, ow).transpose(0, 2, 3, 1) if s.y_nchw else y[..., :outputs]
    assert relative_error(ours, expected) < (2e-3 if s.dtype == "float16" else 2e-6)
    if s.y_pitch:
        untouched = np.empty_like(y)
        poison(untouched)
        assert y[..., outputs:].tobytes() == untouched[..., outputs:].tobytes()


def test_only_long_blocks_look_again_behind_their_start() -> None:
    def again(shape: ConvShape, tile: Tile) -> bool:
        share = -(-shape.depth // tile.bk) / (tile.cluster * tile.parts)
        return bool(share > conv_kernels(shape, tile)[0].constants["PERIOD"])

    found = {name for name, case in CASES.items() if again(*case)}
    assert found == {"mma_long", "mma_long_cluster", "ffma_3x3_stride_2", "dot2_3x3"}
