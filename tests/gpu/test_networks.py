# SPDX-License-Identifier: Apache-2.0
"""The perception networks through the GPU kernels, on the host target, against ONNX Runtime."""

import functools

import numpy as np
import onnxruntime
import pytest

from reefd.compiler import Compiled, compile_to_memory
from reefd.compiler.load import load
from reefd.compiler.operators import supported
from reefd.gpu.lower import Lowered, Workspace, lower_model
from reefd.gpu.target import TARGETS
from tests import ROOT

from .checks import relative_error
from .emulator import Array, HostKernels


@functools.cache
def compiled(name: str) -> Compiled:
    return compile_to_memory(load(ROOT / f"resource/onnx/{name}.onnx", {}, supported), name)


def run(model: Compiled, lowered: Lowered, inputs: dict[str, Array], *, preemptible: bool) -> dict[str, Array]:
    storage = model.model.storage
    memories: dict[str | int, Array] = {"arena": np.full(model.model.arena_bytes, 0xFF, np.uint8)}
    for index, s in enumerate(storage):
        if s.kind == "input":
            memories[index] = inputs[s.name].reshape(-1).view(np.uint8)
        elif s.base < 0 and s.kind in ("output", "weight"):
            given = model.weights[s.name] if s.kind == "weight" else np.full(s.size, np.nan, s.stype)
            memories[index] = np.array(given).reshape(-1).view(np.uint8)
    workspaces: dict[int, Array] = {}
    host = HostKernels([launch.kernel for launch in lowered.launches])
    host.clear()
    for number, launch in enumerate(lowered.launches):
        args: list[Array | None] = []
        for arg in launch.args:
            if isinstance(arg, Workspace):
                args.append(workspaces.setdefault(id(arg), np.full(arg.bytes, 0xFF, np.uint8)))
            elif isinstance(arg, str):
                args.append(lowered.constants[arg])
            elif arg is None:
                args.append(None)
            else:
                memory, offset = lowered.places[arg]
                args.append(memories[memory][offset:])
        host.launch(number, args, preemptible=preemptible)
    return {storage[i].name: memories[i].view(storage[i].stype).reshape(storage[i].shape) for i in model.model.outputs}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["face_detector", "iris"])
def test_network(name: str, dtype: str) -> None:
    model = compiled(name)
    lowered = lower_model(model.model, model.weights, TARGETS["host"], dtype)
    generator = np.random.default_rng(3)
    inputs = {
        model.model.storage[i].name: generator.random(model.model.storage[i].shape, np.float32)
        for i in model.model.inputs
    }
    session = onnxruntime.InferenceSession(
        (ROOT / f"resource/onnx/{name}.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    given = {
        i.name: inputs[i.name].reshape([d if isinstance(d, int) else 1 for d in i.shape]) for i in session.get_inputs()
    }
    expected = dict(zip(names, session.run(names, given), strict=True))
    plain = run(model, lowered, inputs, preemptible=False)
    for output in names:
        error = relative_error(plain[output].reshape(-1), expected[output].reshape(-1))
        assert error < (1e-4 if dtype == "float32" else 1e-2), f"{output}: {error}"
    again = run(model, lowered, inputs, preemptible=True)
    assert all(again[n].tobytes() == plain[n].tobytes() for n in names)
