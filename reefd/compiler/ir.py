# SPDX-License-Identifier: Apache-2.0
"""The compiler's own graph: values with fixed type and shape, nodes in the order in which they run.

The same structs serve every stage. After loading, a node's `op` is an ONNX operator; after lowering, a kernel of
kernels/README.md or one of the two that cost nothing, `reshape` and (until the layout stage) `transpose`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(slots=True, eq=False)
class Value:
    """A tensor. A constant carries its data; identity, not name, says which value it is."""

    name: str
    dtype: str  # NumPy's name
    shape: tuple[int, ...]
    data: np.ndarray | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)  # of any size: a file may declare shapes that no machine holds

    @property
    def bytes(self) -> int:
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(slots=True, eq=False)
class Node:
    """One operation. A None among the inputs or outputs of an ONNX node is an optional one that was left out."""

    op: str
    name: str
    inputs: list[Value | None]
    outputs: list[Value | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 0
    domain: str = ""
    sources: list[str] = field(default_factory=list)  # the ONNX nodes whose work this does, once lowered

    def absorb(self, *others: "Node") -> None:
        """This node does the work of others too, which run before or after it."""
        names = (name for node in (self, *others) for name in node.sources)
        self.sources = list(dict.fromkeys(names))

    def become(
        self, op: str, inputs: Sequence[Value], attributes: dict[str, Any], producers: Mapping[Value, "Node"]
    ) -> None:
        """This node turns into another, which computes its result from earlier values at once."""
        taken, inner = [], list(self.reads())
        while inner:  # what led from the inputs to this node
            before = producers.get(inner.pop())
            if before is not None and before not in taken and not set(before.writes()) <= set(inputs):
                taken.append(before)
                inner += [value for value in before.reads() if value not in inputs]
        self.absorb(*taken)
        self.op, self.inputs, self.attributes = op, list(inputs), attributes

    @property
    def output(self) -> Value:
        value = self.outputs[0]
        assert value is not None
        return value

    def input(self, index: int) -> Value:
        value = self.inputs[index]
        assert value is not None
        return value

    def reads(self) -> Iterator[Value]:
        return (value for value in self.inputs if value is not None)

    def writes(self) -> Iterator[Value]:
        return (value for value in self.outputs if value is not None)


@dataclass(slots=True)
class Graph:
    name: str
    inputs: list[Value]
    outputs: list[Value]
    output_names: list[str]
    nodes: list[Node]

    def consumers(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, each named once."""
        readers: dict[Value, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for value in dict.fromkeys(node.reads()):
                readers[value].append(node)
        return readers

    def producers(self) -> dict[Value, Node]:
        return {value: node for node in self.nodes for value in node.writes()}

    def replace(self, replacements: dict[Value, Value]) -> None:
        """Puts other values in the place of some, wherever they are read or returned. Chains are followed."""

        def final(value: Value) -> Value:
            while value in replacements:
                value = replacements[value]
            return value

        for node in self.nodes:
            node.inputs = [None if value is None else final(value) for value in node.inputs]
        self.outputs = [final(value) for value in self.outputs]

    def remove_dead(self) -> None:
        """Drops every node whose results nobody reads."""
        wanted = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(value in wanted for value in node.writes()):
                kept.append(node)
                wanted.update(node.reads())
        self.nodes = kept[::-1]


def constants(values: Iterable[Value | None]) -> bool:
    """Whether all of them are constants."""
    return all(value is None or value.data is not None for value in values)
