# SPDX-License-Identifier: Apache-2.0
"""Detectors, segmentation heads and the other families compute what ONNX Runtime computes, in few kernels."""

import collections

import numpy as np
import pytest

from reefd import _engine

from . import families
from .oracle import compiled, difference, noise, reference, run

SIDES = {"yolo": 64, "unet": 48, "deeplab": 65, "efficientnet": 56, "mobilenet_v3": 48, "shufflenet": 56}
# The most that may be left of what should have gone into other kernels. A detector turns its three heads, U-Net its
# masks, and what ConvNeXt multiplies and adds is channels last on one side only.
MOST = {
    "yolo": {"transpose": 3, "unary": 0}, "unet": {"transpose": 1, "unary": 0}, "deeplab": {"unary": 0},
    "efficientnet": {"transpose": 0, "unary": 0}, "mobilenet_v3": {"transpose": 0, "unary": 0},
    "shufflenet": {"unary": 0}, "convnext": {"transpose": 0, "binary": 4, "unary": 0},
    "vision_transformer": {"transpose": 2, "softmax": 0, "unary": 0},
}  # fmt: skip


@pytest.mark.parametrize("name", families.FAMILIES)
def test_network(name: str) -> None:
    model = families.build(name)
    feeds = {"image": noise(1, 3, *[SIDES.get(name, 32)] * 2)}
    result, wanted = compiled(model), reference(model, feeds)
    for isa in _engine.instruction_sets():
        outputs = run(result, feeds, isa)
        for key, array in wanted.items():
            assert array.std() > 0.05 * np.abs(array).max()
            assert difference(outputs[key], array) <= 1e-4
    assert result.summary.arena_bytes <= 1.3 * result.summary.live_bytes
    kernels = collections.Counter(kernel.op for kernel in result.model.kernels)
    assert {op: kernels[op] for op in MOST[name] if kernels[op] > MOST[name][op]} == {}, kernels
