# SPDX-License-Identifier: Apache-2.0
"""softmax, layer_norm, attention and resize2d on the host target, against NumPy and ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest

from reefd.gpu.rows import attention_kernel, layer_norm_kernel, resize_kernel, softmax_kernel
from reefd.gpu.target import TARGETS

from .checks import relative_error, run_all, seeded
from .emulator import Array

TOLERANCE = {"float32": 3e-6, "float16": 2e-3}


def softmax(v: Array, axis: int) -> Array:
    e = np.exp(v - v.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(7, 1000, 1), (3, 5, 11)])
def test_softmax(shape: tuple[int, int, int], dtype: str) -> None:
    x = (seeded(1)(shape) * 4).astype(dtype)
    y = np.empty_like(x)
    run_all([softmax_kernel(*shape, dtype=dtype)], [[x, y]], [y])
    assert relative_error(y, softmax(x.astype(np.float64), 1)) < TOLERANCE[dtype]
    run_all([softmax_kernel(*shape, dtype=dtype, logarithm=True)], [[x, y]], [y], most_stops=2)
    assert relative_error(y, np.log(softmax(x.astype(np.float64), 1))) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("center", [False, True])
def test_layer_norm(center: bool, dtype: str) -> None:
    normal = seeded(2)
    x = normal((9, 300), dtype) + np.asarray(3, dtype)
    scale, shift = normal(300), normal(300)
    y = np.empty_like(x)
    k = layer_norm_kernel(9, 300, epsilon=1e-5, center=center, dtype=dtype)
    run_all([k], [[x, scale, shift, y]], [y])
    v = x.astype(np.float64)
    v -= v.mean(1, keepdims=True) if center else 0
    expected = v / np.sqrt((v * v).mean(1, keepdims=True) + 1e-5) * scale + shift
    assert relative_error(y, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("dtype", "target", "extents"),  # batch, queries, keys, heads, head, values
    [
        *((dtype, "gfx906", (2, 20, 45, 3, 16, values)) for dtype in ("float32", "float16") for values in (16, 20)),
        ("float16", "host", (2, 20, 45, 3, 16, 20)),  # 20 is no whole product: scalar there too
        ("float16", "host", (2, 20, 45, 3, 16, 32)),  # tensor cores: a block of one warp, one tile of keys
        ("float16", "host", (1, 70, 130, 4, 32, 16)),  # two warps, three tiles of keys
        ("float16", "host", (1, 64, 33, 2, 112, 80)),  # small tiles of keys
        ("float16", "host", (2, 130, 64, 4, 64, 64)),  # four warps, whole tiles
    ],
)
@pytest.mark.parametrize("mask_axes", [None, "batch", "head and query"])
def test_attention(mask_axes: str | None, extents: tuple[int, ...], target: str, dtype: str) -> None:
    batch, queries, keys, heads, head, values = extents
    mask_shape = (batch, 1, 1, keys) if mask_axes == "batch" else (1, heads, queries, keys)
    normal = seeded(3)
    q, k = normal((batch, queries, heads, head), dtype), normal((batch, keys, heads, head), dtype)
    v = normal((batch, keys, heads, values), dtype)
    y = np.empty((batch, queries, heads, values), dtype)
    scores = np.einsum("bqhd,bkhd->bhqk", q.astype(np.float64), k.astype(np.float64)) * 0.25
    mask, strides = None, None
    if mask_axes:
        mask = np.where(normal(mask_shape) > 0, 0, -1e4).astype(dtype)
        scores += mask
        strides = tuple(s // mask.itemsize if d > 1 else 0 for s, d in zip(mask.strides, mask_shape, strict=True))[:3]
    kernel = attention_kernel(
        batch, queries, keys, heads, head, values, scale=0.25, mask=strides, dtype=dtype, target=TARGETS[target]
    )
    assert (kernel.family == "TensorAttention") == (target == "host" and values % 16 == 0)
    run_all([kernel], [[q, k, v, mask, y]], [y])
    expected = np.einsum("bhqk,bkhd->bqhd", softmax(scores, -1), v.astype(np.float64))
    assert relative_error(y, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "mode,coordinates,rounding",
    [
        ("linear", "half_pixel", "prefer_floor"),
        ("linear", "align_corners", "prefer_floor"),
        ("linear", "asymmetric", "prefer_floor"),
        ("nearest", "asymmetric", "floor"),
        ("nearest", "half_pixel", "prefer_floor"),
        ("nearest", "half_pixel", "prefer_ceil"),
    ],
)
@pytest.mark.parametrize("c", [8, 3])
def test_resize(mode: str, coordinates: str, rounding: str, c: int) -> None:
    n, h, w, out = 1, 5, 7, (12, 9)
    x = seeded(4)((n, h, w, c))
    y = np.empty((n, *out, c), np.float32)
    run_all(
        [resize_kernel(n, h, w, c, out, mode=mode, coordinates=coordinates, rounding=rounding)],
        [[x, y]],
        [y],
        most_stops=3,
    )
    rounding_mode = {"prefer_floor": "round_prefer_floor", "prefer_ceil": "round_prefer_ceil"}.get(rounding, rounding)
    node = onnx.helper.make_node(
        "Resize",
        ["x", "", "", "sizes"],
        ["y"],
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding_mode,
    )
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [n, c, h, w])],
        [onnx.helper.make_tensor_value_info("y", 1, [n, c, *out])],
        [onnx.helper.make_tensor("sizes", 7, [4], [n, c, *out])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0].transpose(0, 2, 3, 1)
    assert relative_error(y, expected) < 3e-6
