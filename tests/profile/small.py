# SPDX-License-Identifier: Apache-2.0
"""A model of two kernels, and a profile for it that says what a test wants it to."""

from pathlib import Path

import msgspec
import numpy as np

from reefd import resource
from reefd.resource import Kernel, ModelFile, Storage
from reefd.resource.profile import VERSION, KernelProfile, Machine, Padding, Profile, Segment

MACHINE = Machine(processor="Test 1000", kernels="portable, reefd 1", compute_units=4)


def write_model(folder: Path, scale: float = 1.0) -> None:
    """y = relu(x + w), in two steps."""
    shape = [1, 64]
    storages = [
        Storage("x", 64, "float32", "input", shape),
        Storage("w", 64, "float32", "weight", shape),
        Storage("sum", 64, "float32", "arena", shape),
        Storage("y", 64, "float32", "output", shape),
    ]
    kernels = [
        Kernel("add", [0, 1, 2], "binary", ["read", "read", "write"], {"function": "add"}),
        Kernel("relu", [2, 3], "unary", ["read", "write"], {"activation": "relu"}),
    ]
    model = ModelFile(folder.name, storages, kernels, [0], [3], 256, version=1)
    resource.write(folder, model, {"w": np.full(shape, scale, np.float32)})


def profile_of(found: resource.Resource, **changes: object) -> Profile:
    kernels = [
        KernelProfile("add", 1, [900, 1000, 1000], 700, 900, 0),
        KernelProfile("relu", 1, [400, 500, 500], 450, 300, 0),
    ]
    plan = Padding(0.02, 0.01, [Segment(1, 0), Segment(2, 3)])
    return msgspec.structs.replace(Profile(VERSION, "cpu", found.digest, MACHINE, [1, 2, 4], kernels, plan), **changes)
