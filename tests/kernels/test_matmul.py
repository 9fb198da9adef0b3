# SPDX-License-Identifier: Apache-2.0
"""matmul against ONNX Runtime: shapes, broadcasting, constant and computed operands, ends, schedules, bad resources."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from reefd import _engine

from .harness import INSTRUCTION_SETS, Array, Instance, RefusedError, check_schedules, difference

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    a: tuple[int, ...]
    b: tuple[int, ...]
    constant: bool = True  # b
    trans_a: bool = False
    trans_b: bool = False
    bias: bool = False
    residual: bool = False
    activation: str = "none"
    activation_first: bool = False


ONNX_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "tanh": ("Tanh", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.125}),
}


def reference(case: Case, tensors: dict[str, Array]) -> Array:
    """A MatMul node in ONNX Runtime and, one by one, what is fused into it here."""
    nodes = []
    names = []
    for name, turned, shape in (("a", case.trans_a, case.a), ("b", case.trans_b, case.b)):
        names.append(name)
        if turned:
            perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
            nodes.append(helper.make_node("Transpose", [name], [f"{name}t"], perm=perm))
            names[-1] += "t"
    nodes.append(helper.make_node("MatMul", names, ["t0"]))
    steps = [["bias"] if case.bias else [], ["residual"] if case.residual else []]
    acts = [] if case.activation == "none" else [case.activation]
    chain = steps[0] + (acts + steps[1] if case.activation_first else steps[1] + acts)
    for index, step in enumerate(chain):
        if step in ("bias", "residual"):
            nodes.append(helper.make_node("Add", [f"t{index}", step], [f"t{index + 1}"]))
        else:
            name, attributes = ONNX_ACTIVATIONS[step]
            nodes.append(helper.make_node(name, [f"t{index}"], [f"t{index + 1}"], **attributes))
    value = helper.make_tensor_value_info
    inputs = [value(name, onnx.TensorProto.FLOAT, tensor.shape) for name, tensor in tensors.items()]
    graph = helper.make_graph(nodes, "g", inputs, [value(f"t{len(chain)}", onnx.TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, tensors)[0]


def output_shape(case: Case) -> tuple[int, ...]:
    batch = np.broadcast_shapes(case.a[:-2], case.b[:-2])
    return (*batch, case.a[-1 if case.trans_a else -2], case.b[-2 if case.trans_b else -1])


def check(case: Case, isa: str, *, schedules: bool = False) -> None:
    generator = np.random.default_rng(sum(case.a) * 31 + sum(case.b))
    shape = output_shape(case)
    depth = case.a[-2 if case.trans_a else -1]
    tensors = {
        "a": generator.normal(size=case.a).astype(np.float32),
        "b": generator.normal(0, depth**-0.5, case.b).astype(np.float32),
    }
    if case.bias:
        tensors["bias"] = generator.normal(size=shape[-1]).astype(np.float32)
    if case.residual:
        tensors["residual"] = generator.normal(size=shape).astype(np.float32)
    attributes: dict[str, Any] = {
        "trans_a": case.trans_a,
        "trans_b": case.trans_b,
        "bias": case.bias,
        "residual": case.residual,
        "activation": case.activation,
        "activation_first": case.activation_first,
    }
    if case.activation == "leaky_relu":
        attributes["alpha"] = 0.125
    constants = ([1] if case.constant else []) + ([2] if case.bias else [])
    arguments = [*tensors.values(), np.empty(shape, np.float32)]
    instance = Instance("matmul", arguments, attributes, constants=constants, isa=isa)
    y = check_schedules(instance) if schedules else instance.run()
    assert difference(y, reference(case, tensors)) < TOLERANCE


SHAPES = {
    "square": Case((64, 64), (64, 64)),
    "ragged": Case((37, 53), (53, 71)),
    "one row": Case((1, 1000), (1000, 130)),
    "one column": Case((130, 70), (70, 1)),
    "outer product": Case((20, 1), (1, 33)),
    "deep": Case((19, 3001), (3001, 50)),
    "wide": Case((3, 40), (40, 1003)),
    "tall": Case((1003, 24), (24, 24)),
    "batches of a": Case((3, 5, 17, 40), (40, 36)),
    "batches of both": Case((2, 3, 9, 20), (2, 3, 20, 31)),
    "broadcast a": Case((9, 20), (4, 20, 31)),
    "broadcast axes": Case((2, 1, 9, 20), (1, 3, 20, 31)),
    "broadcast b in part": Case((2, 3, 9, 20), (2, 1, 20, 31)),
    "broadcast ranks": Case((3, 9, 20), (5, 1, 20, 7)),
    "turned a": Case((33, 41), (33, 29), trans_a=True),
    "turned a deep": Case((2, 1700, 41), (2, 1700, 29), trans_a=True),
    "turned b": Case((2, 41, 33), (2, 67, 33), trans_b=True),
    "turned both": Case((3, 33, 41), (29, 33), trans_a=True, trans_b=True),
}


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "computed"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, constant: bool, isa: str) -> None:
    check(replace(SHAPES[name], constant=constant), isa, schedules=True)


ENDS: list[dict[str, Any]] = [
    {"bias": True},
    {"bias": True, "activation": "relu"},
    {"bias": True, "residual": True},
    {"residual": True, "activation": "relu"},
    {"residual": True, "activation": "relu", "activation_first": True},
    {"bias": True, "residual": True, "activation": "gelu", "activation_first": True},
    {"bias": True, "activation": "gelu"},
    {"activation": "gelu_tanh"},
    {"activation": "leaky_relu"},
    {"activation": "tanh", "residual": True},
]


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "computed"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: " ".join(end))
def test_ends(end: dict[str, Any], constant: bool, isa: str) -> None:
    check(replace(Case((2, 21, 900), (900, 43), constant=constant), **end), isa)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", ["float64", "int32", "uint32", "int64", "uint64"])
def test_other_types(dtype: str, isa: str) -> None:
    generator = np.random.default_rng(5)
    # Large values: integers wrap as NumPy's do.
    a = (generator.normal(size=(2, 3, 5, 7)) * 2**20).astype(dtype)
    b = (generator.normal(size=(3, 7, 4)) * 2**20).astype(dtype)
    expected = a @ b
    spec = _engine.ModelSpec("m", 64)
    storages = [
        spec.add_storage("a", "input", dtype, a.shape),
        spec.add_storage("b", "input", dtype, b.shape),
        spec.add_storage("y", "output", dtype, expected.shape),
    ]
    spec.add_kernel("k", "matmul", storages, ["read", "read", "write"], {})
    spec.set_inputs(storages[:2])
    spec.set_outputs(storages[2:])
    y = np.zeros_like(expected)
    _engine.run_model(spec, [a, b], [y], isa=isa)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "y", "attributes", "words"),
    [
        ((4, 5), (6, 7), (4, 7), {}, "has 5 columns, 't' 6 rows"),
        ((4, 5), (5, 7), (4, 8), {}, "should end in 4 x 7"),
        ((4,), (4, 7), (4, 7), {}, "two dimensions"),
        ((2, 4, 5), (3, 5, 7), (6, 4, 7), {}, "does not broadcast"),
        ((3, 2, 4, 5), (5, 7), (2, 4, 7), {}, "has 4 dimensions, the output 3"),
        ((4, 5), (5, 7), (4, 7), {"bias": 1}, "has 3 arguments, expected 4"),
        ((4, 5), (5, 7), (4, 7), {"activation": "prelu"}, "use unary"),
    ],
)
def test_refuses(a: Any, b: Any, y: Any, attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        Instance("matmul", [np.ones(shape, np.float32) for shape in (a, b, y)], attributes)
