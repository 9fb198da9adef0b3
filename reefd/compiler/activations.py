# SPDX-License-Identifier: Apache-2.0
"""Activations that an exporter wrote as several nodes: SiLU, HardSwish, GELU in both forms, Mish and others.

There are many ways to write each, so none is looked for. What element-wise nodes and scalar constants make of one value
is a function of one variable: it is evaluated at some points, and whoever agrees at all of them is that function.
"""

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reefd.compiler.ir import Graph, Node, Value

_MOST_NODES = 12
_ENDS = ("log", "reciprocal")  # functions of one operand that a pattern may end with
_SAME = 1e-5  # exporters round their constants, e.g. 1.41421 for the root of 2
# Both sides of every bend of the functions below, and far out; no point where one is not smooth.
_POINTS = np.concatenate([np.linspace(-11.93, 12.07, 97), [-0.013, 0.017, -2.991, 3.011]])

Array = NDArray[np.float64]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.divide(1.0, 1.0 + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.logaddexp(np.zeros_like(x), x)


_UNARY: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0), "sigmoid": _sigmoid, "tanh": np.tanh, "erf": _erf, "exp": np.exp, "log": np.log,
    "sqrt": np.sqrt, "abs": np.abs, "neg": np.negative, "reciprocal": np.reciprocal, "softplus": _softplus,
}  # fmt: skip
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "max": np.maximum,
    "min": np.minimum,
}  # fmt: skip
# What the kernels can do in one step. The leaky form's slope is read off the function itself.
_KNOWN: dict[str, Callable[[Array], Array]] = {
    "silu": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sigmoid": _sigmoid,
}
_SAMPLES = {name: function(_POINTS) for name, function in _KNOWN.items()}


def find_activations(graph: Graph) -> None:
    """The last node of each becomes the activation; the others die unless something else reads them."""
    producers = graph.producers()
    places = {node: place for place, node in enumerate(graph.nodes)}
    for root in reversed(graph.nodes):
        if _element_wise(root) and (root.op == "binary" or root.attributes["activation"] in _ENDS):
            _recognise(root, producers, places)
    graph.remove_dead()


def _recognise(root: Node, producers: Mapping[Value, Node], places: Mapping[Node, int]) -> None:
    """Walks back from `root`. Whenever all that was taken in depends on one value, the function is looked up."""
    cone = {root}
    frontier = set(_operands(root))
    while True:
        if len(frontier) == 1 and len(cone) > 1 and _become(root, next(iter(frontier)), cone, producers, places):
            return
        made = [producers[value] for value in frontier if value in producers]
        if not made or len(cone) == _MOST_NODES:
            return
        youngest = max(made, key=lambda node: places[node])  # nothing still to come can read it
        if not _element_wise(youngest):
            return
        cone.add(youngest)
        frontier = (frontier - {youngest.output}) | set(_operands(youngest))


def _element_wise(node: Node) -> bool:
    if node.output.dtype != "float32":
        return False
    if node.op == "unary":
        return node.attributes["activation"] in (*_UNARY, "clip", "hard_sigmoid")
    if node.op != "binary" or node.attributes["function"] not in _BINARY or node.attributes.get("activation"):
        return False
    return all(value.shape == node.output.shape or _scalar(value) is not None for value in node.reads())


def _scalar(value: Value) -> float | None:
    return float(value.data.reshape(-1)[0]) if value.data is not None and value.data.size == 1 else None


def _operands(node: Node) -> list[Value]:
    return [value for value in dict.fromkeys(node.reads()) if _scalar(value) is None]


def _become(
    root: Node, x: Value, cone: AbstractSet[Node], producers: Mapping[Value, Node], places: Mapping[Node, int]
) -> bool:
    if x.shape != root.output.shape or x.dtype != "float32" or x.data is not None:
        return False
    with np.errstate(all="ignore"):
        values = _evaluate(root, x, cone, places)
        attributes = _named(values)
    if attributes is None:
        return False
    root.become("unary", [x], attributes, producers)
    return True


def _evaluate(root: Node, x: Value, cone: AbstractSet[Node], places: Mapping[Node, int]) -> Array:
    known = {x: _POINTS}
    for node in sorted(cone, key=lambda node: places[node]):
        operands = [
            known[value] if value in known else np.full(_POINTS.shape, _scalar(value) or 0.0) for value in node.reads()
        ]
        if node.op == "binary":
            known[node.output] = _BINARY[node.attributes["function"]](operands[0], operands[1])
        else:
            known[node.output] = _unary(node.attributes, operands[0])
    return known[root.output]


def _unary(attributes: Mapping[str, Any], x: Array) -> Array:
    name = attributes["activation"]
    if name == "clip":
        low, high = float(attributes.get("alpha", -math.inf)), float(attributes.get("beta", math.inf))
        return np.minimum(np.maximum(x, low), high)
    if name == "hard_sigmoid":
        return np.minimum(np.maximum(x * float(attributes["alpha"]) + float(attributes["beta"]), 0), 1)
    return _UNARY[name](x)


def _named(values: Array) -> dict[str, Any] | None:
    def same(wanted: Array) -> bool:
        return bool(np.all(np.abs(values - wanted) <= _SAME * np.maximum(1, np.abs(wanted))))

    if not np.isfinite(values).all():
        return None
    for name, wanted in _SAMPLES.items():
        if same(wanted):
            return {"activation": name}
    if same(np.clip(_POINTS / 6 + 0.5, 0, 1)):
        return {"activation": "hard_sigmoid", "alpha": 1 / 6, "beta": 0.5}
    slope = float(values[0] / _POINTS[0])
    if 0 < slope < 1 and same(np.where(_POINTS < 0, slope * _POINTS, _POINTS)):
        return {"activation": "leaky_relu", "alpha": slope}
    return None
