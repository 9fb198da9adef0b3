# SPDX-License-Identifier: Apache-2.0
"""Pooling and resizing give what ONNX Runtime gives."""

import numpy as np
import pytest

from .oracle import check_node, noise


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("channels", [3, 16, 600])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [0, 1, 2, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"kernel_shape": [5, 5], "auto_pad": "SAME_LOWER", "strides": [3, 3]},
    ],
)
def test_pool(op: str, channels: int, window: dict[str, object]) -> None:
    check_node(op, [noise(2, channels, 11, 14)], **window)


def test_dilated_pool() -> None:
    check_node("MaxPool", [noise(1, 5, 17, 19)], kernel_shape=[3, 3], dilations=[2, 3], pads=[1, 2, 2, 1])


def test_average_that_counts_its_pads() -> None:
    check_node(
        "AveragePool", [noise(1, 5, 9, 9)], kernel_shape=[3, 3], pads=[1, 0, 1, 2], strides=[2, 2], count_include_pad=1
    )


def test_pool_of_rows() -> None:
    check_node("MaxPool", [noise(2, 6, 30)], kernel_shape=[3], strides=[2], pads=[1, 1])


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize("sizes", [(14, 18), (5, 31), (7, 1)])
def test_linear_resize(coordinates: str, sizes: tuple[int, int]) -> None:
    constants = {1: None, 2: None, 3: np.array([2, 6, *sizes], np.int64)}
    check_node(
        "Resize", [noise(2, 6, 7, 9)], constants=constants, mode="linear", coordinate_transformation_mode=coordinates
    )


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
def test_nearest_resize(coordinates: str, rounding: str) -> None:
    constants = {1: None, 2: np.array([1, 1, 2, 3], np.float32)}
    check_node(
        "Resize", [noise(1, 20, 6, 5)], 0, constants=constants, mode="nearest", nearest_mode=rounding,
        coordinate_transformation_mode=coordinates,
    )  # fmt: skip
