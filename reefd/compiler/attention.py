# SPDX-License-Identifier: Apache-2.0
"""softmax(scale * q k^T + mask) v as one kernel, from the forms that exporters write.

The scale may stand on the query, on the key, on both, or on the scores; the mask may be added or put in by a Where; the
heads may be an axis of their own or part of the batch.
"""

import numpy as np

from reefd.compiler.ir import Graph, Node, Value
from reefd.compiler.simplify import sole_consumer

_HIDES = -1e30  # a fill below this leaves nothing of any score that it is added to


def find_attention(graph: Graph) -> None:
    finder = _Finder(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "matmul":
            nodes += finder.replacement(node)
        else:
            nodes.append(node)
    graph.nodes = nodes
    graph.remove_dead()


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.consumers = graph.consumers()
        self.producers = graph.producers()

    def replacement(self, mix: Node) -> list[Node]:
        """What takes the place of the last product, or the product itself."""
        softmax = self._maker(mix.input(0), "softmax")
        weights, value = mix.input(0), mix.input(1)
        if softmax is None or softmax.attributes["axis"] != weights.rank - 1 or softmax.attributes.get("log"):
            return [mix]
        new: list[Node] = []
        scores, mask = self._unmasked(softmax.input(0), new)
        scores, scale = self._unscaled(scores)
        product = self._maker(scores, "matmul")
        if product is None or product.attributes:
            return [mix]
        query, query_scale = self._unscaled(product.input(0))
        turned, key_scale = self._unscaled(product.input(1))
        if not _fits(query, turned, value, mask):
            return [mix]
        key = _moved(new, "transpose", turned, (*turned.shape[:-2], turned.shape[-1], turned.shape[-2]), "key")
        operands = [_four(new, operand) for operand in (query, key, value)]
        if mask is not None:
            operands.append(_four(new, mask))
        batch, heads, length, _ = operands[0].shape
        result = Value(mix.output.name, "float32", (batch, heads, length, value.shape[-1]))
        attributes = {"scale": scale * query_scale * key_scale, "mask": int(mask is not None)}
        kept = [value for node in new if node.op == "where" for value in node.reads()]  # what else made the mask
        mix.become("attention", [query, turned, value, *kept, *([] if mask is None else [mask])], {}, self.producers)
        new.append(Node("attention", mix.name, [*operands], [result], attributes, sources=mix.sources))
        new.append(Node("reshape", mix.name, [result], [mix.output]))
        return new

    def _maker(self, value: Value, op: str) -> Node | None:
        """The node that computes a value which nobody else reads."""
        producer = self.producers.get(value)
        alone = sole_consumer(self.graph.outputs, self.consumers, value) is not None
        return producer if producer is not None and producer.op == op and alone else None

    def _unmasked(self, scores: Value, new: list[Node]) -> tuple[Value, Value | None]:
        added = self._maker(scores, "binary")
        if added is not None and added.attributes["function"] == "add":
            for place in (0, 1):
                inner, mask = added.input(place), added.input(1 - place)
                if inner.shape == scores.shape and self._from_product(inner):
                    return inner, mask
        chosen = self._maker(scores, "where")
        if chosen is not None:
            condition = chosen.input(0)
            for place in (1, 2):
                inner, fill = chosen.input(place), _number(chosen.input(3 - place))
                if inner.shape == scores.shape and fill is not None and fill < _HIDES:
                    shown, hidden = (_scalar(f"{chosen.name}.{number}", number) for number in (0.0, fill))
                    mask = Value(f"{chosen.name}.mask", "float32", condition.shape)
                    operands = [condition, shown, hidden] if place == 1 else [condition, hidden, shown]
                    new.append(Node("where", chosen.name, [*operands], [mask], sources=chosen.sources))
                    return inner, mask
        return scores, None

    def _from_product(self, scores: Value) -> bool:
        inner, _ = self._unscaled(scores)
        return self._maker(inner, "matmul") is not None

    def _unscaled(self, value: Value) -> tuple[Value, float]:
        """What a value is a multiple of, and the factor."""
        factor = 1.0
        while (node := self._maker(value, "binary")) is not None:
            function, a, b = node.attributes["function"], node.input(0), node.input(1)
            if function == "mul" and _number(a) is not None:
                a, b = b, a
            number = _number(b)
            if function not in ("mul", "div") or number is None or number == 0 or a.shape != value.shape:
                break
            factor *= number if function == "mul" else 1 / number
            value = a
        return value, factor


def _number(value: Value) -> float | None:
    return float(value.data.reshape(-1)[0]) if value.data is not None and value.size == 1 else None


def _scalar(name: str, number: float) -> Value:
    return Value(name, "float32", (), np.asarray(number, np.float32))


def _fits(query: Value, turned: Value, value: Value, mask: Value | None) -> bool:
    """Queries [.., L, D], turned keys [.., D, S], values [.., S, E] of the same one or two leading axes."""
    for operand in (query, turned, value):
        if operand.rank not in (3, 4) or operand.dtype != "float32" or operand.data is not None:
            return False
        if operand.shape[:-2] != query.shape[:-2]:
            return False
    if mask is None:
        return True
    scores = (*query.shape[:-1], turned.shape[-1])
    shape = (1,) * (len(scores) - mask.rank) + mask.shape
    return (
        mask.dtype == "float32" and mask.rank <= len(scores) and shape[-1] == scores[-1]
        and all(extent in (1, whole) for extent, whole in zip(shape, scores, strict=True))
    )  # fmt: skip


def _moved(new: list[Node], op: str, value: Value, shape: tuple[int, ...], what: str) -> Value:
    result = Value(f"{value.name}.{what}", value.dtype, shape)
    perm = [*range(value.rank - 2), value.rank - 1, value.rank - 2]
    new.append(Node(op, result.name, [value], [result], {"perm": perm} if op == "transpose" else {}))
    return result


def _four(new: list[Node], value: Value) -> Value:
    """With four axes: heads that are part of the batch become all of the heads of one sequence."""
    if value.rank == 4:
        return value
    shape = (1,) * (4 - value.rank) + value.shape
    if value.data is not None:
        return Value(value.name, value.dtype, shape, value.data.reshape(shape))
    return _moved(new, "reshape", value, shape, "heads")
