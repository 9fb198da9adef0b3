# SPDX-License-Identifier: Apache-2.0
"""The four networks of resource/onnx agree with ONNX Runtime on crops of the real picture."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from reefd import _engine
from reefd.resource import Resource
from reefd.resource.load import model_spec
from tests import ROOT

from .oracle import check, compiled, run

# Network: the crop it is given (left, top, right, bottom), the side of its input, and the range of its values.
CASES = {
    "person_detector": ((0, 0, 512, 512), 224, (-1, 1)),
    "face_detector": ((100, 0, 356, 256), 128, (-1, 1)),
    "face_mesh": ((156, 59, 298, 201), 192, (0, 1)),
    "iris": ((170, 90, 220, 140), 64, (0, 1)),
}


def picture(name: str) -> np.ndarray:
    box, side, (low, high) = CASES[name]
    crop = Image.open(ROOT / "resource/astronaut.png").convert("RGB").crop(box)
    pixels = np.asarray(crop.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255
    return np.ascontiguousarray((pixels * (high - low) + low).transpose(2, 0, 1)[None])


@pytest.mark.parametrize("name", CASES)
def test_network(name: str) -> None:
    result = check(onnx.load(ROOT / f"resource/onnx/{name}.onnx"), {"image": picture(name)}, 1e-5)
    operators = {kernel.op for kernel in result.model.kernels}
    # Everything else has become part of a kernel, or of nothing at all.
    assert operators <= {"conv2d", "depthwise_conv2d", "pool2d", "resize2d", "transpose", "concat"}
    assert result.summary.arena_bytes <= 1.3 * result.summary.live_bytes


@pytest.mark.parametrize("name", ["face_mesh", "iris"])
def test_bits_do_not_depend_on_how_blocks_ran(name: str) -> None:
    """Any number of workers, plain or preemptible, undisturbed or abandoned at random and resumed."""
    result = compiled(onnx.load(ROOT / f"resource/onnx/{name}.onnx"))
    wanted = run(result, {"image": picture(name)})
    spec = model_spec(Resource(Path(), result.model, result.weights, ""))
    for workers in range(1, 6):
        device = _engine.CpuDevice(workers=workers)
        model = device.load(spec)
        for options in ({}, {"preemptible": True}, {"preemptible": True, "interrupts": 15, "seed": workers}):
            outputs = {key: np.zeros_like(array) for key, array in wanted.items()}
            device.run(model, [picture(name)], list(outputs.values()), **options)
            for key, array in outputs.items():
                assert array.tobytes() == wanted[key].tobytes(), (workers, options, key)
