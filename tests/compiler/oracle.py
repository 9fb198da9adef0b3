# SPDX-License-Identifier: Apache-2.0
"""ONNX models built in a line, run through the compiler and the CPU kernels, and compared with ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from reefd import _engine
from reefd.compiler import Compiled, compile_to_memory
from reefd.compiler.load import from_model
from reefd.compiler.operators import supported
from reefd.resource import Resource
from reefd.resource.load import model_spec

Arrays = Mapping[str, np.ndarray]


def compiled(model: onnx.ModelProto) -> Compiled:
    return compile_to_memory(from_model(model, Path("model.onnx"), {}, supported), "model")


def run(model: Compiled, inputs: Arrays, isa: str = "") -> dict[str, np.ndarray]:
    """Runs it once on the CPU kernels."""
    file = model.model
    spec = model_spec(Resource(Path(), file, model.weights, ""))
    feeds = [np.ascontiguousarray(inputs[file.storage[index].name]) for index in file.inputs]
    outputs = {
        file.storage[index].name: np.zeros(file.storage[index].shape, file.storage[index].stype)
        for index in file.outputs
    }
    _engine.run_model(spec, feeds, list(outputs.values()), isa=isa)
    return outputs


def reference(model: onnx.ModelProto, inputs: Arrays) -> dict[str, np.ndarray]:
    """ONNX Runtime's answer."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| / max|b|, infinite values apart, which must be equal."""
    assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, a.dtype, b.shape, b.dtype)
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else float("inf")
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite].astype(np.float64) - b[finite]).max() / max(np.abs(b[finite]).max(), 1e-30))


def check(model: onnx.ModelProto, inputs: Arrays, tolerance: float = 1e-5) -> Compiled:
    """Every instruction set gives ONNX Runtime's answer, and the same bits when asked again."""
    result = compiled(model)
    wanted = reference(model, inputs)
    for isa in _engine.instruction_sets():
        outputs = run(result, inputs, isa)
        assert list(outputs) == list(wanted)
        for name, array in outputs.items():
            assert difference(array, wanted[name]) <= tolerance, f"{name} on {isa}: {difference(array, wanted[name])}"
    return result


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Arrays,
    outputs: Sequence[str],
    constants: Arrays | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model whose inputs have the shapes of `inputs`; shape inference finds what its outputs are."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    for place, output in enumerate(inferred.graph.output):
        model.graph.output[place].CopyFrom(output)
    return model


def check_node(
    op: str, inputs: Sequence[np.ndarray], tolerance: float = 1e-5, outputs: int = 1,
    constants: Mapping[int, np.ndarray] | None = None, opset: int = 17, **attributes: Any,
) -> Compiled:  # fmt: skip
    """One node. `constants` are operands known when it is compiled, by their place; None leaves a place out."""
    known = dict(constants or {})
    names, feeds, held = [], {}, {}
    operands = list(inputs)
    for place in range(len(inputs) + len(known)):
        name = f"x{place}"
        if place in known:
            if known[place] is None:
                name = ""
            else:
                held[name] = known[place]
        else:
            feeds[name] = operands.pop(0)
        names.append(name)
    results = [f"y{place}" for place in range(outputs)]
    node = helper.make_node(op, names, results, "node", **attributes)
    return check(model_of([node], feeds, results, held, opset), feeds, tolerance)


def noise(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Seeded values that are all different; integers in [-20, 20]."""
    generator = np.random.default_rng([seed, *shape])
    if np.dtype(dtype).kind in "iu":
        low = 0 if np.dtype(dtype).kind == "u" else -20
        return generator.integers(low, 20, shape).astype(dtype)
    if dtype == "bool":
        return generator.random(shape) < 0.5
    return generator.normal(size=shape).astype(dtype)
