# SPDX-License-Identifier: Apache-2.0
"""Layer normalisation over the last axis, as exporters wrote it before ONNX had an operator for it.

PyTorch's form is (x - mean) / sqrt(variance + epsilon) * scale + bias, TensorFlow's x * f + (bias - mean * f) with
f = 1 / sqrt(variance + epsilon) * scale. Without a mean, x / sqrt(mean(x * x) + epsilon) * scale, it is the root mean
square form.
"""

from dataclasses import dataclass

import numpy as np

from reefd.compiler.ir import Graph, Node, Value
from reefd.compiler.simplify import sole_consumer


def find_layer_norms(graph: Graph) -> None:
    finder = _Finder(graph)
    for node in graph.nodes:
        if node.op == "unary" and node.attributes["activation"] == "sqrt":
            finder.look(node)
    graph.remove_dead()


@dataclass
class _Statistics:
    x: Value
    mean: Value | None  # None: the root mean square form
    centred: Value
    epsilon: float


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.consumers = graph.consumers()
        self.producers = graph.producers()

    def look(self, root: Node) -> None:
        found = self._statistics(root.input(0))
        if found is None:
            return
        for reader in self.consumers.get(root.output, []):
            if self._is(reader, "div") and reader.input(1) is root.output:
                if reader.input(0) is found.centred:
                    self._become(reader, found)
                elif found.mean is not None and _is_ones(reader.input(0)):
                    self._from_factor(reader, found)
            elif reader.op == "unary" and reader.attributes["activation"] == "reciprocal":
                self._from_factor(reader, found)

    def _from_factor(self, inverse: Node, found: _Statistics) -> None:
        for reader in self.consumers.get(inverse.output, []):
            if not self._is(reader, "mul"):
                continue
            other = _other(reader, inverse.output)
            if other is found.centred:
                self._become(reader, found)
            elif found.mean is not None and other.data is not None and other.size == found.x.shape[-1]:
                self._tensorflow(reader, other, found)

    def _tensorflow(self, factor: Node, scale: Value, found: _Statistics) -> None:
        """y = x * factor + (bias - mean * factor)"""
        for reader in self.consumers.get(factor.output, []):
            if not self._is(reader, "mul") or _other(reader, factor.output) is not found.x:
                continue
            last = sole_consumer(self.graph.outputs, self.consumers, reader.output)
            if last is None or not self._is(last, "add"):
                continue
            minus = self.producers.get(_other(last, reader.output))
            if minus is None or not self._is(minus, "sub") or not _fits(minus.input(0), found.x):
                continue
            shifted = self.producers.get(minus.input(1))
            if shifted is not None and self._is(shifted, "mul") and {*shifted.reads()} == {found.mean, factor.output}:
                self._write(last, found, scale, minus.input(0))

    def _statistics(self, variance: Value) -> _Statistics | None:
        """From mean(square of (x - mean(x))) + epsilon."""
        plus = self.producers.get(variance)
        if plus is None or not self._is(plus, "add"):
            return None
        constant = next((value for value in plus.reads() if value.data is not None), None)
        if constant is None or constant.data is None or constant.size != 1:
            return None
        epsilon = float(constant.data.reshape(-1)[0])
        mean = self.producers.get(_other(plus, constant))
        if mean is None or not _is_mean(mean):
            return None
        square = self.producers.get(mean.input(0))
        centred = self._squared(square)
        if centred is None or epsilon < 0 or centred.dtype != "float32":
            return None
        minus = self.producers.get(centred)
        if minus is not None and self._is(minus, "sub"):
            average = self.producers.get(minus.input(1))
            if average is not None and _is_mean(average) and average.input(0) is minus.input(0):
                return _Statistics(minus.input(0), minus.input(1), centred, epsilon)
        return _Statistics(centred, None, centred, epsilon)

    def _squared(self, node: Node | None) -> Value | None:
        if node is None or node.op != "binary":
            return None
        base, exponent = node.input(0), node.input(1)
        if node.attributes["function"] == "mul" and base is exponent:
            return base
        two = exponent.data is not None and exponent.size == 1 and float(exponent.data.reshape(-1)[0]) == 2.0
        return base if node.attributes["function"] == "pow" and two else None

    def _is(self, node: Node, function: str) -> bool:
        return node.op == "binary" and node.attributes["function"] == function

    def _become(self, node: Node, found: _Statistics) -> None:
        """`node` holds the normalised values; a scale and a bias may follow."""
        scale = bias = None
        after = sole_consumer(self.graph.outputs, self.consumers, node.output)
        if after is not None and self._is(after, "mul") and _fits(_other(after, node.output), found.x):
            node, scale = after, _other(after, node.output)
            after = sole_consumer(self.graph.outputs, self.consumers, node.output)
        if after is not None and self._is(after, "add") and _fits(_other(after, node.output), found.x):
            node, bias = after, _other(after, node.output)
        self._write(node, found, scale, bias)

    def _write(self, node: Node, found: _Statistics, scale: Value | None, bias: Value | None) -> None:
        if node.output.shape != found.x.shape:
            return
        length = found.x.shape[-1]
        operands = [_vector(value, length) for value in (scale, bias) if value is not None]
        attributes = {
            "epsilon": found.epsilon, "scale": int(scale is not None), "bias": int(bias is not None),
            "center": int(found.mean is not None),
        }  # fmt: skip
        node.become("layer_norm", [found.x, *operands], attributes, self.producers)


def _other(node: Node, value: Value) -> Value:
    return node.input(1) if node.input(0) is value else node.input(0)


def _is_mean(node: Node) -> bool:
    """Over the last axis, which is kept."""
    rank = node.input(0).rank
    return (
        node.op == "reduce" and node.attributes["function"] == "mean" and node.attributes["axes"] == [rank - 1]
        and node.output.rank == rank
    )  # fmt: skip


def _is_ones(value: Value) -> bool:
    return value.data is not None and value.size == 1 and float(value.data.reshape(-1)[0]) == 1.0


def _fits(value: Value, x: Value) -> bool:
    """A constant with one number for each place of the last axis."""
    return value.data is not None and value.shape[-1:] == x.shape[-1:] and value.size == x.shape[-1]


def _vector(value: Value, length: int) -> Value:
    assert value.data is not None
    return Value(value.name, value.dtype, (length,), np.ascontiguousarray(value.data.reshape(length)))
