# SPDX-License-Identifier: Apache-2.0
"""Whole networks through the GPU kernels, on the host target, against ONNX Runtime: perception networks, the families
of tests/compiler, and a small encoder of two sentences with masks."""

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from reefd import zoo
from reefd.compiler import Compiled, compile_to_memory
from reefd.compiler.load import from_model, load
from reefd.compiler.operators import supported
from reefd.gpu.lower import Lowered, LowerError, Workspace, lower_model
from reefd.gpu.target import TARGETS
from reefd.zoo import encoders
from reefd.zoo.net import Net
from tests import ROOT
from tests.compiler import families
from tests.compiler.test_families import SIDES

from .checks import relative_error
from .emulator import Array, HostKernels

TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
WORDS = 40


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
    workspaces = [a for launch in lowered.launches for a in launch.args if isinstance(a, Workspace)]
    workspace = np.full(max((a.offset + a.bytes for a in workspaces), default=0), 0xFF, np.uint8)
    host = HostKernels([launch.kernel for launch in lowered.launches])
    host.clear()
    for number, launch in enumerate(lowered.launches):
        args: list[Array | None] = []
        for arg in launch.args:
            if isinstance(arg, Workspace):
                args.append(workspace[arg.offset :])
            elif isinstance(arg, str):
                args.append(lowered.constants[arg])
            elif arg is None:
                args.append(None)
            else:
                memory, offset = lowered.places[arg]
                args.append(memories[memory][offset:])
        host.launch(number, args, preemptible=preemptible)
    return {storage[i].name: memories[i].view(storage[i].stype).reshape(storage[i].shape) for i in model.model.outputs}


def small_encoder(monkeypatch: pytest.MonkeyPatch, batch: int) -> onnx.ModelProto:
    """distilbert, with every extent small."""
    for name, value in {"WORDS": WORDS, "PLACES": 16, "WIDTH": 24, "HEADS": 3, "INNER": 40, "LENGTH": 11}.items():
        monkeypatch.setattr(encoders, name, value)
    net = Net("encoder", 1, batch=batch)
    encoders.distilbert(net)
    return net.model()


def compare(compiled: Compiled, proto: onnx.ModelProto, inputs: dict[str, Array], dtype: str) -> None:
    """Plain kernels against ONNX Runtime; preemptible ones give the same bits."""
    lowered = lower_model(compiled.model, compiled.weights, TARGETS["host"], dtype)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    given = {
        i.name: inputs[i.name].reshape([d if isinstance(d, int) else 1 for d in i.shape]) for i in session.get_inputs()
    }
    expected = dict(zip(names, session.run(names, given), strict=True))
    plain = run(compiled, lowered, inputs, preemptible=False)
    for output in names:
        error = relative_error(plain[output].reshape(-1), expected[output].reshape(-1))
        assert error < TOLERANCE[dtype], f"{output}: {error}"
    again = run(compiled, lowered, inputs, preemptible=True)
    assert all(again[n].tobytes() == plain[n].tobytes() for n in names)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["face_detector", "iris"])
def test_perception_network(name: str, dtype: str) -> None:
    model = compiled(name)
    generator = np.random.default_rng(3)
    inputs = {
        model.model.storage[i].name: generator.random(model.model.storage[i].shape, np.float32)
        for i in model.model.inputs
    }
    compare(model, onnx.load(ROOT / f"resource/onnx/{name}.onnx"), inputs, dtype)


# Halves meet everything that floats do, and the conversions at a network's ends besides.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float16") for name in families.FAMILIES), ("unet", "float32"), ("vision_transformer", "float32")],
)
def test_family(name: str, dtype: str) -> None:
    proto = families.build(name)
    side = SIDES.get(name, 32)
    image = np.random.default_rng(4).standard_normal((1, 3, side, side), np.float32)
    compare(compile_to_memory(from_model(proto, Path(), {}, supported), name), proto, {"image": image}, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_encoder(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = small_encoder(monkeypatch, 2)
    generator = np.random.default_rng(5)
    mask = np.ones((2, 11), np.int64)
    mask[1, 7:] = 0
    inputs = {"input_ids": generator.integers(0, WORDS, (2, 11)), "attention_mask": mask}
    compare(compile_to_memory(from_model(proto, Path(), {}, supported), "encoder"), proto, inputs, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parts_that_are_written_in_place(dtype: str) -> None:
    """A concatenation along the first axis is no kernel: its parts are views, which halves place at half the offset."""
    net = Net("parts", 1)
    x = net.picture(8, 16)
    parts = [net.conv(x, 16, 1) for _ in range(2)]
    joined = net.node("Concat", parts, axis=0, channels=16)
    net.returns(net.relu(net.conv(joined, 8, 1)), [2, 8, 8, 8], "y")
    proto = net.model()
    model = compile_to_memory(from_model(proto, Path(), {}, supported), "parts")
    assert any(s.base >= 0 and s.kind == "arena" for s in model.model.storage)
    compare(model, proto, {"image": np.random.default_rng(6).standard_normal((1, 16, 8, 8), np.float32)}, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", ["squeezenet", "mobilenet_v2"])
def test_batches_lower(name: str, dtype: str) -> None:
    """For every device; the same kernels as for one picture, with more blocks."""
    for target in TARGETS.values():
        launches = []
        for batch in (1, 32):
            made = compile_to_memory(from_model(zoo.build(name, 1, batch), Path(), {}, supported), name)
            launches.append(lower_model(made.model, made.weights, target, dtype).launches)
        few, many = (sum(launch.kernel.blocks for launch in each) for each in launches)
        assert many > 4 * few


def test_what_has_no_kernel_is_refused_by_name_and_all_at_once() -> None:
    net = Net("refused", 1)
    x = net.picture(8, 4)
    wide = net.node("Tan", [x], channels=4)
    net.returns(net.node("Atan", [net.add(wide, x)], channels=4), [1, 4, 8, 8], "y")
    made = compile_to_memory(from_model(net.model(), Path(), {}, supported), "refused")
    with pytest.raises(LowerError) as caught:
        lower_model(made.model, made.weights, TARGETS["host"])
    assert "(map): activation 'tan'" in str(caught.value) and "(map): activation 'atan'" in str(caught.value)
