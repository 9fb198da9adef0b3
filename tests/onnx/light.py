# SPDX-License-Identifier: Apache-2.0
"""The light_* networks of the onnx package: real topologies with constant weights, given weights worth computing with.

Every initializer that is filled from a shape becomes seeded random values: weights scaled by their fan-in, so that
activations neither vanish nor overflow; variances and scales near one.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.compiler import oracle

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
NAMES = sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("light_*.onnx"))


def network(name: str) -> onnx.ModelProto:
    """The topology with seeded random weights, and only the picture as input."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant"
    }
    weights = {
        node.output[0]: constants[node.input[0]] for node in model.graph.node if node.op_type == "ConstantOfShape"
    }
    roles = {
        value: (node.op_type, place)
        for node in model.graph.node
        for place, value in enumerate(node.input)
        if node.op_type != "ConstantOfShape"
    }
    generator = np.random.default_rng([ord(letter) for letter in name])
    kept = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for value, shape in weights.items():
        array = _filled(generator, tuple(int(extent) for extent in shape), *roles.get(value, ("", 0)))
        model.graph.initializer.append(numpy_helper.from_array(array, value))
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in known]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    return model


def _filled(generator: np.random.Generator, shape: tuple[int, ...], op: str, place: int) -> np.ndarray:
    if op == "BatchNormalization" and place in (1, 4):  # scale, variance
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) >= 2:
        fan_in = int(np.prod(shape[1:]))
        return (generator.normal(size=shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    return generator.normal(scale=0.1, size=shape).astype(np.float32)


def inputs(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    feeds = {}
    for info in model.graph.input:
        tensor = info.type.tensor_type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feeds[info.name] = np.random.default_rng(5).normal(size=shape).astype(dtype)
    return feeds


def tempered(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The same with what enters a last softmax scaled to a spread of 2: without it one class would take everything."""
    last = model.graph.node[-1]
    if last.op_type != "Softmax":
        return model
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(onnx.ValueInfoProto(name=last.input[0]))
    spread = float(next(iter(oracle.reference(probe, feeds).values())).std())
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2 / spread), "temper"))
    scaled = helper.make_node("Mul", [last.input[0], "temper"], ["tempered"], "temper")
    if next(entry.version for entry in model.opset_import if entry.domain == "") < 7:
        scaled.attribute.append(helper.make_attribute("broadcast", 1))
    last.input[0] = "tempered"
    model.graph.node.insert(len(model.graph.node) - 1, scaled)
    return model


def compare(name: str) -> float:
    """max|a - b| / max|b| between this compiler and ONNX Runtime, on outputs that vary."""
    model = network(name)
    feeds = inputs(model)
    model = tempered(model, feeds)
    wanted = oracle.reference(model, feeds)
    for array in wanted.values():
        assert array.std() > 1e-2 * np.abs(array).max() and len(np.unique(array)) > array.size // 2
    outputs = oracle.run(oracle.compiled(model), feeds)
    return max(oracle.difference(outputs[key], wanted[key]) for key in wanted)
