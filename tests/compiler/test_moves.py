# SPDX-License-Identifier: Apache-2.0
"""Kernels that move elements give what ONNX Runtime gives, for every type, shape and mode."""

import numpy as np
import pytest
from onnx import helper

from .oracle import check, check_node, model_of, noise

DTYPES = ["float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("perm", [(0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3), (0, 3, 1, 2)])
def test_transpose(dtype: str, perm: tuple[int, ...]) -> None:
    check_node("Transpose", [noise(2, 21, 5, 37, dtype=dtype)], 0, perm=perm)


def test_transpose_of_many_axes() -> None:
    check_node("Transpose", [noise(2, 3, 4, 2, 3, 2)], 0, perm=[4, 1, 5, 0, 3, 2])


def test_transpose_larger_than_a_block() -> None:
    check_node("Transpose", [noise(70, 1030)], 0, perm=[1, 0])


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [7], [1], [2]),
        ([-1], [-100], [2], [-1]),
        ([8, 0], [0, 3], [1, 0], [-3, 1]),
        ([2, 1, 3], [100, 100, 9], [0, 1, 2], [1, 1, 1]),
    ],
)
def test_slice(starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> None:
    places = {place + 1: np.array(values, np.int64) for place, values in enumerate((starts, ends, axes, steps))}
    check_node("Slice", [noise(4, 9, 12)], 0, constants=places)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_concat(axis: int, dtype: str) -> None:
    shapes = [[4, 6, 5], [4, 6, 5], [4, 6, 5]]
    for place, extent in enumerate((1, 7, 300)):
        shapes[place][axis] = extent
    feeds = {f"x{place}": noise(*shape, seed=place, dtype=dtype) for place, shape in enumerate(shapes)}
    # A second reader keeps the parts from being written in place, so that the kernel itself runs.
    nodes = [helper.make_node("Concat", list(feeds), ["y"], axis=axis)]
    check(model_of(nodes, feeds, ["y"]), feeds, 0)


def test_concat_of_kernels_is_written_in_place() -> None:
    feeds = {"a": noise(1, 16, 8), "b": noise(1, 32, 8)}
    nodes = [
        helper.make_node("Relu", ["a"], ["p"]),
        helper.make_node("Sigmoid", ["b"], ["q"]),
        helper.make_node("Concat", ["p", "q"], ["y"], axis=1),
    ]
    result = check(model_of(nodes, feeds, ["y"]), feeds)
    assert [kernel.op for kernel in result.model.kernels] == ["unary", "unary"]


def test_concat_of_one_value_twice() -> None:
    feeds = {"a": noise(1, 16, 8)}
    nodes = [helper.make_node("Relu", ["a"], ["p"]), helper.make_node("Concat", ["p", "p"], ["y"], axis=1)]
    check(model_of(nodes, feeds, ["y"]), feeds)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "float64"])
def test_pad(mode: str, dtype: str) -> None:
    pads = np.array([0, 2, 1, 3, 1, 0, 4, 2] if mode != "reflect" else [0, 2, 1, 3, 0, 0, 4, 2], np.int64)
    constants = {1: pads}
    if mode == "constant":
        constants[2] = np.array(3, dtype)
    check_node("Pad", [noise(2, 4, 6, 7, dtype=dtype)], 0, constants=constants, mode=mode)


def test_pad_takes_away() -> None:
    check_node("Pad", [noise(6, 9)], 0, constants={1: np.array([-1, 2, 1, -3], np.int64)})


def test_expand_and_tile() -> None:
    check_node("Expand", [noise(3, 1, 5)], 0, constants={1: np.array([2, 3, 4, 5], np.int64)})
    check_node("Tile", [noise(3, 2, 5)], 0, constants={1: np.array([2, 1, 3], np.int64)})


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    check_node("DepthToSpace", [noise(2, 36, 5, 7)], 0, blocksize=3, mode=mode)


def test_split() -> None:
    check_node("Split", [noise(2, 10, 4)], 0, outputs=3, constants={1: np.array([3, 1, 6], np.int64)}, axis=1)


@pytest.mark.parametrize("repeats", [(2, 2, 2, 2, 2), (1, 3, 1, 2, 2), (2, 1, 1, 1, 3), (1, 1, 1, 1, 1)])
def test_tile_of_many_axes(repeats: tuple[int, ...]) -> None:
    check_node("Tile", [noise(2, 3, 2, 3, 4)], 0, constants={1: np.array(repeats, np.int64)})
    six = np.array([2, *repeats], np.int64)
    check_node("Tile", [noise(2, 2, 3, 2, 1, 4)], 0, constants={1: six})
