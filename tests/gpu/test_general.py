# SPDX-License-Identifier: Apache-2.0
"""Gathers, reductions, casts and batched products in several types on the host target, against NumPy."""

import numpy as np
import pytest

from reefd.gpu.elementwise import binary_kernel, cast_kernel, where_kernel
from reefd.gpu.general import arg_reduce_kernel, batched_kernel, reduce_kernel, scan_kernel, topk_kernel
from reefd.gpu.moves import gather_elements_kernel, gather_kernel, gather_nd_kernel, one_hot_kernel

from .checks import relative_error, run_all, seeded
from .emulator import Array

INT = np.random.default_rng(7)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
@pytest.mark.parametrize("axes", [(0,), (1, 3), (2,), (0, 1, 2, 3)])
@pytest.mark.parametrize("function", ["sum", "mean", "max", "min", "sum_abs", "sum_square"])
def test_reduce(function: str, axes: tuple[int, ...], dtype: str) -> None:
    shape = (3, 5, 4, 7)
    x: Array = INT.integers(-30, 60, shape) if dtype == "int64" else seeded(3)(shape, dtype)
    wide = x.astype(np.float64)
    expected = {
        "sum": wide.sum, "mean": wide.mean, "max": wide.max, "min": wide.min, "sum_abs": np.abs(wide).sum,
        "sum_square": (wide * wide).sum,
    }[function](axis=axes)  # fmt: skip
    expected = np.atleast_1d(expected)
    y = np.empty(expected.shape, dtype)
    run_all([reduce_kernel(shape, axes, function=function, dtype=dtype)], [[x, y]], [y], most_stops=2)
    if dtype == "int64":
        assert np.array_equal(y, expected.astype(np.int64))
    else:
        assert relative_error(y, expected) < (2e-6 if dtype == "float32" else 2e-3)


def test_gathers_check_every_index() -> None:
    x = seeded(4)((3, 6, 8))
    indices = np.array([5, -1, 0, 6, -7, 1 << 40], np.int64)  # the last three name nothing
    y = np.empty((3, 6, 8), np.float32)
    run_all([gather_kernel(3, 6, 8, 6, dtype="float32")], [[x, indices, y]], [y], most_stops=2)
    expected = np.zeros_like(y)
    expected[:, :3] = x[:, [5, 5, 0]]
    assert np.array_equal(y, expected)

    narrow = np.empty((3, 2, 8), np.float16)
    kernel = gather_kernel(3, 6, 8, 2, dtype="float32", y_dtype="float16", index="int32")
    run_all([kernel], [[x, np.array([2, 9], np.int32), narrow]], [narrow], most_stops=2)
    assert np.array_equal(narrow[:, 0], x[:, 2].astype(np.float16)) and not narrow[:, 1].any()

    places = INT.integers(-6, 6, (3, 4, 8))
    z = np.empty(places.shape, np.float32)
    run_all([gather_elements_kernel(x.shape, z.shape, 1, dtype="float32")], [[x, places, z]], [z], most_stops=2)
    assert np.array_equal(z, np.take_along_axis(x, places % 6, 1))

    pairs = np.array([[0, 1], [2, -1], [3, 0]], np.int64)
    rows = np.empty((3, 8), np.float32)
    run_all([gather_nd_kernel(1, 3, (3, 6), 8, dtype="float32")], [[x, pairs, rows]], [rows], most_stops=2)
    assert np.array_equal(rows[:2], x[[0, 2], [1, 5]]) and not rows[2].any()


def test_one_hot_casts_and_choices() -> None:
    indices, values = np.array([[1, -1], [7, 0]], np.int64), np.array([0.5, 2], np.float32)
    y = np.empty((2, 3, 2), np.float32)
    run_all([one_hot_kernel(2, 3, 2, index="int64", dtype="float32")], [[indices, values, y]], [y], most_stops=2)
    expected = np.where(np.array([[[0, 0], [1, 0], [0, 1]], [[0, 1], [0, 0], [0, 0]]]), 2, 0.5)
    assert np.array_equal(y, expected)

    x = np.array([1.7, -2.9, 0, 3e9, -3e9, np.nan, 300], np.float32)
    whole, truth = np.empty(7, np.int32), np.empty(7, bool)
    run_all([cast_kernel(7, dtype="float32", y_dtype="int32")], [[x, whole]], [whole], most_stops=2)
    assert whole.tolist() == [1, -2, 0, 2**31 - 1, -(2**31), 0, 300]
    run_all([cast_kernel(7, dtype="float32", y_dtype="bool")], [[x, truth]], [truth], most_stops=2)
    assert truth.tolist() == [True, True, False, True, True, True, True]

    a, b = seeded(5)((4, 1, 6)), seeded(6)((5, 6)).astype(np.float16)
    condition, z = seeded(7)((4, 5, 1)) > 0, np.empty((4, 5, 6), np.float16)
    kernel = where_kernel((4, 5, 1), a.shape, b.shape, dtypes=("float32", "float16"), y_dtype="float16")
    run_all([kernel], [[condition, a, b, z]], [z], most_stops=2)
    assert np.array_equal(z, np.where(condition, a, b).astype(np.float16))


@pytest.mark.parametrize(
    ("function", "call"),
    [("add", np.add), ("less", np.less), ("mod", np.mod), ("fmod", np.fmod), ("bit_xor", np.bitwise_xor)],
)
def test_integers(function: str, call: np.ufunc) -> None:
    a, b = INT.integers(-99, 99, (6, 9)), INT.integers(1, 9, (9,)) * np.array([1, -1, 1] * 3)
    expected = call(a, b)
    y = np.empty(expected.shape, expected.dtype)
    run_all([binary_kernel(a.shape, b.shape, function=function, dtype="int64")], [[a, b, y]], [y], most_stops=2)
    assert np.array_equal(y, expected)


def test_division_of_integers_is_towards_zero_and_by_zero_zero() -> None:
    a, b = np.array([7, -7, 7, -(2**63)], np.int64), np.array([2, 2, 0, -1], np.int64)
    y = np.empty(4, np.int64)
    run_all([binary_kernel((4,), (4,), function="div", dtype="int64")], [[a, b, y]], [y], most_stops=2)
    assert y.tolist() == [3, -3, 0, -(2**63)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_places_and_running_sums(dtype: str) -> None:
    x = seeded(8)((4, 37, 3), dtype)
    x[1, 5] = x[1, 9] = 50
    places = np.empty((4, 3), np.int64)
    run_all([arg_reduce_kernel(4, 37, 3, largest=True, last=False, dtype=dtype)], [[x, places]], [places], most_stops=2)
    assert np.array_equal(places, x.argmax(1))
    lines = np.ascontiguousarray(x.transpose(0, 2, 1)).reshape(12, 37)
    values, at = np.empty((12, 5), dtype), np.empty((12, 5), np.int64)
    run_all([topk_kernel(12, 37, 5, largest=True, dtype=dtype)], [[lines, values, at]], [values, at], most_stops=2)
    order = np.argsort(-lines.astype(np.float64), 1, kind="stable")[:, :5]
    assert np.array_equal(at, order) and np.array_equal(values, np.take_along_axis(lines, order, 1))
    y = np.empty_like(x)
    kernel = scan_kernel(4, 37, 3, product=False, reverse=True, exclusive=True, dtype=dtype)
    run_all([kernel], [[x, y]], [y], most_stops=2)
    wide = x.astype(np.float64)
    assert relative_error(y, wide[:, ::-1].cumsum(1)[:, ::-1] - wide) < (2e-6 if dtype == "float32" else 2e-3)


@pytest.mark.parametrize(("trans_a", "trans_b"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_batched_products(dtype: str, trans_a: bool, trans_b: bool) -> None:
    def operand(shape: tuple[int, ...], turned: bool) -> Array:
        whole = INT.integers(-9, 9, shape) if dtype == "int64" else seeded(len(shape))(shape, dtype)
        return np.ascontiguousarray(np.swapaxes(whole, -1, -2)) if turned else whole

    a, b = operand((2, 3, 33, 40), trans_a), operand((3, 40, 35), trans_b)
    expected = np.matmul(
        np.swapaxes(a, -1, -2).astype(np.float64) if trans_a else a.astype(np.float64),
        np.swapaxes(b, -1, -2).astype(np.float64) if trans_b else b.astype(np.float64),
    )
    y = np.empty(expected.shape, dtype)
    real = dtype != "int64"
    bias, residual = seeded(9)(35), seeded(10)(expected.shape).astype(dtype)
    kernel = batched_kernel(
        a.shape, b.shape, trans_a=trans_a, trans_b=trans_b, bias=real, residual=real, dtypes=(dtype, dtype),
        activation="relu" if real else "none",
    )  # fmt: skip
    run_all([kernel], [[a, b, bias, residual, y]], [y], most_stops=3)
    if real:
        expected = np.maximum(expected + bias + residual, 0)
        assert relative_error(y, expected) < (2e-6 if dtype == "float32" else 2e-3)
    else:
        assert np.array_equal(y, expected.astype(np.int64))
