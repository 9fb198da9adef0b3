# SPDX-License-Identifier: Apache-2.0
"""Random ONNX graphs as a Hypothesis strategy: each step draws an operator that fits a value which is there.

Magnitudes stay near one: weights are scaled by their fan-in and functions get arguments from where they are tame, so
that a difference means a wrong result and not a badly conditioned one. What only moves elements, or was computed from
booleans and integers, is exact; comparisons and casts that could turn rounding into another result take such values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper, shape_inference

OPSET = 17
MOST_ELEMENTS = 20_000
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    exact: bool = False  # the same bits whoever computes it

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass
class Chain:
    """A graph that grows. `draw` is Hypothesis's."""

    draw: Draw
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)
    values: list[Tensor] = field(default_factory=list)

    @cached_property
    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.draw(st.integers(0, 2**16)))

    # ---- pieces

    def input(self, dtype: str, *shape: int) -> Tensor:
        name = f"in{len(self.feeds)}"
        if dtype == "bool":
            array = self.random.random(shape) < 0.5
        elif dtype == "float32":
            array = self.random.normal(size=shape).astype(np.float32)
        else:
            array = self.random.integers(-9, 9, shape).astype(dtype)
        self.feeds[name] = np.asarray(array)
        return self.keep(Tensor(name, dtype, shape, True))

    def constant(self, array: np.ndarray | float | Sequence[int]) -> str:
        data = np.asarray(array)
        data = data.astype(np.float32) if data.dtype == np.float64 else data
        name = f"c{len(self.constants)}"
        self.constants[name] = data
        return name

    def constant_of(self, dtype: str, value: float) -> str:
        name = self.constant(np.asarray(0))
        self.constants[name] = np.asarray(value, dtype)
        return name

    def weight(self, *shape: int, fan_in: int = 1) -> str:
        return self.constant((self.random.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32))

    def keep(self, tensor: Tensor) -> Tensor:
        self.values.append(tensor)
        return tensor

    def add(self, op: str, operands: Sequence[Tensor | str], outputs: int = 1, exact: bool = False, **attributes: Any
            ) -> list[Tensor]:  # fmt: skip
        """A node whose outputs' types and shapes ONNX itself infers."""
        names = [operand if isinstance(operand, str) else operand.name for operand in operands]
        results = [f"v{len(self.nodes)}_{place}" for place in range(outputs)]
        node = helper.make_node(op, names, results, f"{op.lower()}_{len(self.nodes)}", **attributes)
        types = {
            operand.name: helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(np.dtype(operand.dtype)), operand.shape
            )
            for operand in operands
            if isinstance(operand, Tensor)
        }
        data = {}
        for name in names:
            if name in self.constants:
                array = self.constants[name]
                types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                data[name] = numpy_helper.from_array(array, name)
        inferred = shape_inference.infer_node_outputs(
            onnx.defs.get_schema(op, OPSET), node, types, data, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        self.nodes.append(node)
        made = []
        for name in results:
            tensor = inferred[name].tensor_type
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
            shape = tuple(dim.dim_value for dim in tensor.shape.dim)
            made.append(self.keep(Tensor(name, dtype, shape, exact)))
        return made

    def one(self, op: str, operands: Sequence[Tensor | str], exact: bool = False, **attributes: Any) -> Tensor:
        return self.add(op, operands, 1, exact, **attributes)[0]

    def choose(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def flag(self) -> bool:
        return bool(self.draw(st.booleans()))

    def model(self) -> onnx.ModelProto:
        """Everything that nobody reads is an output."""
        read = {name for node in self.nodes for name in node.input}
        made = {name for node in self.nodes for name in node.output}
        outputs = [value for value in self.values if value.name in made and value.name not in read]
        graph = helper.make_graph(
            self.nodes, "chain",
            [_info(name, array.dtype, array.shape) for name, array in self.feeds.items() if name in read],
            [_info(value.name, np.dtype(value.dtype), value.shape) for value in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _info(name: str, dtype: np.dtype, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


@st.composite
def chains(draw: Draw) -> Chain:
    """A graph of 1 to 8 steps on a picture, a sequence of vectors, or a matrix, beside integers and booleans."""
    from . import steps, steps_moving  # noqa: F401 (the operators, which import this module)

    chain = Chain(draw)
    side = st.integers(1, 13)
    kind = draw(st.sampled_from(["picture", "picture", "sequence", "matrix", "row", "volume"]))
    shape = {
        "picture": lambda: (draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 33])),
                            draw(side), draw(side)),
        "sequence": lambda: (draw(st.integers(1, 2)), draw(side), draw(st.sampled_from([1, 4, 6, 16, 30]))),
        "matrix": lambda: (draw(st.integers(1, 20)), draw(st.integers(1, 40))),
        "row": lambda: (draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4, 6, 8])), draw(st.integers(1, 40))),
        "volume": lambda: (1, draw(st.sampled_from([1, 2, 4])), *(draw(st.integers(1, 6)) for _ in range(3))),
    }[kind]()  # fmt: skip
    chain.input("float32", *shape)
    for _ in range(draw(st.integers(1, 8))):
        floats = [value for value in chain.values if value.dtype == "float32"]
        # Mostly the newest: long chains find more than bushes.
        value = floats[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(floats))
        fitting = [step for step in steps.STEPS if step.fits(value)]
        draw(st.sampled_from(fitting)).take(chain, value)
    return chain
