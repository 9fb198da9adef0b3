# SPDX-License-Identifier: Apache-2.0
"""Functions that exporters write as several nodes, found again: GELU, SiLU, hard swish, and a scale with an offset.

Runs after simplification and before fusion, so that what is found can move into the kernel before it.
"""

import math

import numpy as np

from reefd.compiler.ir import Graph, Node, Value
from reefd.compiler.simplify import sole_consumer


def find_patterns(graph: Graph) -> None:
    _Finder(graph).run()
    graph.remove_dead()


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.consumers = graph.consumers()
        self.producers = graph.producers()

    def run(self) -> None:
        for node in self.graph.nodes:
            if node.op == "unary" and node.attributes["activation"] == "erf":
                self._gelu(node)
            elif node.op == "unary" and node.attributes["activation"] in ("sigmoid", "hard_sigmoid"):
                self._gated(node)
            elif node.op == "binary" and node.attributes["function"] == "mul":
                self._affine(node)

    def _after(self, value: Value, function: str) -> Node | None:
        """The sole consumer, if it is this binary function."""
        node = sole_consumer(self.graph.outputs, self.consumers, value)
        return node if node is not None and node.op == "binary" and node.attributes["function"] == function else None

    def _become(self, node: Node, op: str, inputs: list[Value], **attributes: object) -> None:
        inner = [value for value in node.reads() if value not in inputs]
        while inner:  # what led from the inputs to this node
            before = self.producers.get(inner.pop())
            if before is not None:
                node.absorb(before)
                inner += [value for value in before.reads() if value not in inputs]
        node.op, node.inputs, node.attributes = op, list(inputs), dict(attributes)

    def _gelu(self, erf: Node) -> None:
        """x * 0.5 * (1 + erf(x / sqrt 2)), in whichever order the factors come."""
        scaled = self.producers.get(erf.input(0))
        if scaled is None or scaled.op != "binary":
            return
        x, factor = scaled.input(0), _scalar(scaled.input(1))
        wanted = {"div": math.sqrt(2), "mul": math.sqrt(0.5)}.get(scaled.attributes["function"])
        if factor is None or wanted is None or not math.isclose(factor, wanted, rel_tol=1e-4):
            return
        plus = self._after(erf.output, "add")
        if plus is None or _scalar(_other(plus, erf.output)) != 1.0:
            return
        product = self._after(plus.output, "mul")
        if product is None:
            return
        partner = _other(product, plus.output)
        half = self.producers.get(partner)
        if partner is x:  # x * (1 + erf), times a half afterwards
            last = self._after(product.output, "mul")
            if last is not None and _scalar(_other(last, product.output)) == 0.5:
                self._become(last, "unary", [x], activation="gelu")
        elif half is not None and half.op == "binary" and half.attributes["function"] == "mul":
            if x in half.inputs and _scalar(_other(half, x)) == 0.5:
                self._become(product, "unary", [x], activation="gelu")
        elif _scalar(partner) == 0.5:  # half of (1 + erf), times x afterwards
            last = self._after(product.output, "mul")
            if last is not None and _other(last, product.output) is x:
                self._become(last, "unary", [x], activation="gelu")

    def _gated(self, gate: Node) -> None:
        """x * sigmoid(x)."""
        product = self._after(gate.output, "mul")
        x = gate.input(0)
        if product is None or _other(product, gate.output) is not x or x.dtype != "float32":
            return
        if gate.attributes["activation"] == "sigmoid":
            self._become(product, "unary", [x], activation="silu")
        elif math.isclose(gate.attributes["alpha"], 1 / 6, rel_tol=1e-4) and gate.attributes["beta"] == 0.5:
            self._become(product, "unary", [x], activation="hard_swish")

    def _affine(self, scale: Node) -> None:
        """x * a + b with constants for each channel (axis 1 of a feature map) or each place of the last axis."""
        plus = self._after(scale.output, "add")
        if plus is None or scale.output.dtype != "float32":
            return
        place = 0 if scale.input(1).data is not None else 1
        x, factor = scale.input(place), scale.input(1 - place)
        offset = _other(plus, scale.output)
        if x.data is not None or x.shape != plus.output.shape or x.rank < 2:
            return
        for axis in (1, x.rank - 1):
            vectors = [_along(value, x, axis) for value in (factor, offset)]
            if vectors[0] is not None and vectors[1] is not None:
                self._become(plus, "affine", [x, vectors[0], vectors[1]], axis=axis)
                return


def _other(node: Node, value: Value) -> Value:
    return node.input(1) if node.input(0) is value else node.input(0)


def _scalar(value: Value) -> float | None:
    return float(value.data.reshape(-1)[0]) if value.data is not None and value.data.size == 1 else None


def _along(value: Value, x: Value, axis: int) -> Value | None:
    """A constant that varies along one axis only, as a vector."""
    if value.data is None or value.rank > x.rank:
        return None
    shape = (1,) * (x.rank - value.rank) + value.shape
    if any(extent != 1 for other, extent in enumerate(shape) if other != axis) or shape[axis] not in (1, x.shape[axis]):
        return None
    data = np.ascontiguousarray(np.broadcast_to(value.data.reshape(-1), (x.shape[axis],)))
    return Value(value.name, value.dtype, data.shape, data)
