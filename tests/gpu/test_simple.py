# SPDX-License-Identifier: Apache-2.0
"""Pooling, depthwise, matrix-vector, element-wise and copy kernels on the host target, against NumPy in float64."""

import numpy as np
import pytest

from reefd.compiler.lowering.builder import VECTORISED
from reefd.gpu.conv import ConvShape, pack_conv_weights
from reefd.gpu.dtypes import ACTIVATIONS
from reefd.gpu.elementwise import binary_kernel, unary_kernel
from reefd.gpu.moves import copy_kernel
from reefd.gpu.shapes import dense_strides
from reefd.gpu.simple import depthwise_kernel, gemv_kernel, pack_depthwise_weights, pool_kernel, transfer_kernel
from reefd.gpu.source import headers_dir

from .checks import relative_error, run_all, seeded
from .test_conv import reference

TOLERANCE = {"float32": 2e-6, "float16": 2e-3}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "mode,kernel,strides,pads,include",
    [
        ("max", (3, 3), (2, 2), (1, 1, 1, 1), False),
        ("average", (3, 3), (1, 1), (1, 1, 1, 1), False),
        ("average", (2, 3), (2, 1), (0, 1, 1, 0), True),
        ("average", (9, 11), (1, 1), (0, 0, 0, 0), False),
    ],
)
def test_pool(
    mode: str, kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...], include: bool, dtype: str
) -> None:
    n, h, w, c = 2, 9, 11, 24
    x = seeded(3)((n, h, w, c), dtype)
    k = pool_kernel(
        n, h, w, c, mode=mode, kernel=kernel, strides=strides, pads=pads, count_include_pad=include, dtype=dtype
    )
    oh, ow = (
        (h + pads[0] + pads[2] - kernel[0]) // strides[0] + 1,
        (w + pads[1] + pads[3] - kernel[1]) // strides[1] + 1,
    )
    y = np.empty((n, oh, ow, c), dtype)
    run_all([k], [[x, y]], [y])
    edge = ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0))
    padded = np.pad(x.astype(np.float64), edge, constant_values=-np.inf if mode == "max" else 0)
    ones = np.pad(np.ones_like(x, dtype=np.float64), edge, constant_values=float(include))
    expected = np.empty(y.shape)
    for i in range(oh):
        for j in range(ow):
            at = (
                slice(None),
                slice(i * strides[0], i * strides[0] + kernel[0]),
                slice(j * strides[1], j * strides[1] + kernel[1]),
            )
            expected[:, i, j] = (
                padded[at].max((1, 2)) if mode == "max" else padded[at].sum((1, 2)) / ones[at].sum((1, 2))
            )
    assert relative_error(y, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("m,depth,o", [(1, 512, 100), (3, 70, 33), (8, 64, 16), (2, 9000, 11)])
def test_gemv(m: int, depth: int, o: int, dtype: str) -> None:
    normal = seeded(depth)
    x, bias = normal((m, depth), dtype), normal(o)
    w = (normal((o, depth)) / np.sqrt(depth)).astype(dtype).astype(np.float32)
    y = np.empty((m, o), np.float32)
    k = gemv_kernel(m, depth, o, dtype=dtype, y_dtype="float32", bias=True, activation="relu")
    run_all([k], [[x, pack_conv_weights(w[:, :, None, None], dtype), bias, None, None, y]], [y])
    assert relative_error(y, np.maximum(x.astype(np.float64) @ w.T + bias, 0)) < 2e-6


@pytest.mark.parametrize("nbytes", [16, 4000, 8 << 10, (16 << 10) + 16])
def test_transfer(nbytes: int) -> None:
    """A part of one block, a whole one, and a little of a third; nothing behind the end is written."""
    outputs = np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8)
    given, before = np.empty(nbytes + 64, np.uint8), np.full(64, 0xFF, np.uint8)
    run_all([transfer_kernel(nbytes)], [[np.array([given.ctypes.data], np.uint64), outputs]], [given])
    assert given[:nbytes].tobytes() == outputs.tobytes()
    assert given[nbytes:].tobytes() == before.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "shape",
    [
        ConvShape(1, 9, 13, 1, 1, (3, 3), (1, 1), (1, 1, 1, 1), groups=32, bias=True, activation="clip", beta=6.0),
        ConvShape(2, 9, 9, 1, 1, (5, 5), (2, 2), (2, 2, 2, 2), groups=16, residual=16, activation="relu"),
        ConvShape(1, 7, 7, 1, 2, (3, 3), (1, 1), (1, 1, 1, 1), groups=5, bias=True, prelu=True),
    ],
)
@pytest.mark.parametrize("strip", [1, 4])
def test_depthwise(shape: ConvShape, strip: int, dtype: str) -> None:
    s = shape._replace(dtype=dtype)
    normal = seeded(5)
    outputs = s.groups * s.o
    x, bias = normal((s.n, s.h, s.w, s.groups), dtype), normal(outputs) if s.bias else None
    w = normal((outputs, 1, *s.kernel)).astype(dtype).astype(np.float32)
    residual = normal((s.n, *s.out_hw, s.residual), dtype) if s.residual else None
    slope = normal(outputs) if s.prelu else None
    y = np.empty((s.n, *s.out_hw, outputs), dtype)
    run_all([depthwise_kernel(s, strip)], [[x, pack_depthwise_weights(w, dtype), bias, residual, slope, y]], [y])
    assert relative_error(y, reference(s, x, w, bias, residual, slope)) < TOLERANCE[dtype]


FUNCTIONS = {
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "tanh": np.tanh,
    "exp": np.exp,
    "relu": lambda v: np.maximum(v, 0),
    "elu": lambda v: np.where(v >= 0, v, 0.5 * np.expm1(v)),
    "gelu_tanh": lambda v: 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))),
    "hard_sigmoid": lambda v: np.clip(0.5 * v + 0.25, 0, 1),
    "softplus": lambda v: np.log1p(np.exp(v)),
    "floor": np.floor,
    "abs": np.abs,
    "mish": lambda v: v * np.tanh(np.log1p(np.exp(v))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_unary(name: str) -> None:
    x = seeded(7)((5, 203)) * 3
    y = np.empty_like(x)
    run_all([unary_kernel(5, 203, activation=name, alpha=0.5, beta=0.25)], [[x, None, None, y]], [y], most_stops=3)
    assert relative_error(y, FUNCTIONS[name](x.astype(np.float64))) < 2e-6


def test_affine_into_a_slice() -> None:
    normal = seeded(8)
    x, scale, shift = normal((50, 40), "float16"), normal(32), normal(32)
    y = np.empty((50, 32), np.float16)
    k = unary_kernel(50, 32, activation="relu", affine=True, dtype="float16", x_pitch=40)
    run_all([k], [[x, scale, shift, y]], [y])
    assert relative_error(y, np.maximum(x[:, :32].astype(np.float64) * scale + shift, 0)) < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "function,a,b",
    [
        ("add", (2, 5, 6, 16), (2, 5, 6, 16)),
        ("mul", (2, 5, 6, 16), (2, 1, 1, 16)),
        ("sub", (3, 1, 7), (4, 1)),
        ("div", (5, 24), (1,)),
        ("max", (1, 24), (7, 1)),
        ("pow", (6, 8), ()),
    ],
)
def test_binary(function: str, a: tuple[int, ...], b: tuple[int, ...], dtype: str) -> None:
    normal = seeded(11)
    x, z = normal(a, dtype), normal(b or (1,), dtype).reshape(b)
    if function == "pow":
        z = np.full_like(z, 2)
    calls = {
        "add": np.add,
        "mul": np.multiply,
        "sub": np.subtract,
        "div": np.divide,
        "max": np.maximum,
        "pow": np.power,
    }
    expected = calls[function](x.astype(np.float64), z.astype(np.float64))
    y = np.empty(expected.shape, dtype)
    run_all([binary_kernel(a, b, function=function, dtype=dtype)], [[x, np.atleast_1d(z), y]], [y], most_stops=4)
    assert relative_error(y, expected) < TOLERANCE[dtype]


def test_copy_transposes_concatenates_and_pads() -> None:
    x = seeded(13)((2, 3, 5, 8))
    y = np.empty((2, 8, 3, 5), np.float32)
    strides = dense_strides(x.shape)
    k = copy_kernel(y.shape, [strides[i] for i in (0, 3, 1, 2)], dense_strides(y.shape))
    run_all([k], [[x, y]], [y], most_stops=3)
    assert np.array_equal(y, x.transpose(0, 3, 1, 2))

    z = np.empty((2, 3, 5, 20), np.float32)
    parts = [copy_kernel((30, 8), (8, 1), (20, 1)), copy_kernel((30, 12), (12, 1), (20, 1), y_offset=8)]
    other = seeded(14)((2, 3, 5, 12))
    run_all(parts, [[x, z], [other, z]], [z], most_stops=4)
    assert np.array_equal(z, np.concatenate([x, other], 3))

    for mode in ("constant", "edge", "reflect"):
        begins, shape = (0, 2, 1, 0), (2, 6, 8, 8)
        p = np.empty(shape, np.float16)
        k = copy_kernel(
            shape,
            strides,
            dense_strides(shape),
            begins=begins,
            extents=x.shape,
            outside=mode,
            fill=-1.5,
            dtype="float16",
            x_dtype="float32",
        )
        run_all([k], [[x, p]], [p], most_stops=3)
        extra = {"constant_values": -1.5} if mode == "constant" else {}
        assert np.array_equal(p, np.pad(x, ((0, 0), (2, 1), (1, 2), (0, 0)), mode=mode, **extra).astype(np.float16))


NEW_FUNCTIONS = {
    "floor": np.floor, "ceil": np.ceil, "round": np.rint, "sign": np.sign, "sin": np.sin, "cos": np.cos,
    "softsign": lambda v: v / (1 + np.abs(v)), "celu": lambda v: np.where(v > 0, v, 1.5 * np.expm1(v / 1.5)),
    "selu": lambda v: 0.5 * np.where(v > 0, v, 1.5 * np.expm1(v)),
    "thresholded_relu": lambda v: np.where(v > 1.5, v, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", NEW_FUNCTIONS)
def test_functions(name: str) -> None:
    x = np.concatenate([seeded(15)(500) * 3, [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 40.0, -700.25]]).astype(np.float32)
    if name in ("selu", "celu"):
        x = np.maximum(x, -20)
    y = np.empty_like(x)
    run_all([unary_kernel(1, len(x), activation=name, alpha=1.5, beta=0.5)], [[x, None, None, y]], [y], most_stops=2)
    assert relative_error(y, NEW_FUNCTIONS[name](x.astype(np.float64))) < 2e-6


def test_every_activation_of_a_schedule_is_there() -> None:
    text = (headers_dir() / "activation.cuh").read_text()
    names = text.split("enum class Activation {")[1].split("}")[0].replace(",", " ").split()
    assert tuple(names) == ACTIVATIONS and VECTORISED - {"prelu"} <= set(names)
