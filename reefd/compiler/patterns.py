# SPDX-License-Identifier: Apache-2.0
"""Functions that were written as several nodes, found again: attention, layer normalisation, activations, and a scale
with an offset.

Runs after simplification and before fusion, so that what is found can move into the kernel before it.
"""

from collections.abc import Mapping

import numpy as np

from reefd.compiler.activations import find_activations
from reefd.compiler.attention import find_attention
from reefd.compiler.ir import Graph, Node, Value
from reefd.compiler.normalization import find_layer_norms
from reefd.compiler.simplify import sole_consumer


def find_patterns(graph: Graph) -> None:
    find_activations(graph)
    find_layer_norms(graph)
    find_attention(graph)
    _find_affine(graph)


def _find_affine(graph: Graph) -> None:
    """x * a + b with constants for each channel (axis 1 of a feature map) or each place of the last axis."""
    consumers, producers = graph.consumers(), graph.producers()
    for node in graph.nodes:
        if node.op == "binary" and node.attributes["function"] == "mul" and node.output.dtype == "float32":
            plus = sole_consumer(graph.outputs, consumers, node.output)
            if plus is not None and plus.op == "binary" and plus.attributes["function"] == "add":
                _affine(node, plus, producers)
    graph.remove_dead()


def _affine(scale: Node, plus: Node, producers: Mapping[Value, Node]) -> None:
    place = 0 if scale.input(1).data is not None else 1
    x, factor = scale.input(place), scale.input(1 - place)
    offset = plus.input(1) if plus.input(0) is scale.output else plus.input(0)
    if x.data is not None or x.shape != plus.output.shape or x.rank < 2:
        return
    for axis in (1, x.rank - 1):
        vectors = [_along(value, x, axis) for value in (factor, offset)]
        if vectors[0] is not None and vectors[1] is not None:
            plus.become("affine", [x, vectors[0], vectors[1]], {"axis": axis}, producers)
            return


def _along(value: Value, x: Value, axis: int) -> Value | None:
    """A constant that varies along one axis only, as a vector."""
    if value.data is None or value.rank > x.rank:
        return None
    shape = (1,) * (x.rank - value.rank) + value.shape
    if any(extent != 1 for other, extent in enumerate(shape) if other != axis) or shape[axis] not in (1, x.shape[axis]):
        return None
    data = np.ascontiguousarray(np.broadcast_to(value.data.reshape(-1), (x.shape[axis],)))
    return Value(value.name, value.dtype, data.shape, data)
