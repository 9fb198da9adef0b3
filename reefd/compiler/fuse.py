# SPDX-License-Identifier: Apache-2.0
"""Stage 4: what follows a convolution or a product is done while its result is still in registers.

A chain starts at a kernel with an epilogue and takes in its only consumer, as long as that is a residual addition or an
activation. The fused kernel runs where the last of the chain ran, so all its operands are there.
"""

from reefd.compiler.ir import Graph, Node, Value
from reefd.compiler.lowering.builder import VECTORISED
from reefd.compiler.simplify import CONVOLUTIONS, sole_consumer

_EPILOGUES = (*CONVOLUTIONS, "matmul")


def fuse(graph: Graph) -> None:
    _bring_activations(graph)
    consumers = graph.consumers()
    producers = graph.producers()
    places = {node: place for place, node in enumerate(graph.nodes)}
    absorbed: set[Node] = set()
    # From the end: where two convolutions are added, the later one takes the addition, and need not be moved for it.
    for node in reversed(graph.nodes):
        if node.op == "matmul":
            _bias(graph, node, consumers, places, absorbed)
        if node.op in _EPILOGUES:
            while _extend(graph, node, consumers, producers, places, absorbed):
                pass
    for node in graph.nodes:
        if node.op in ("binary", "affine") and node not in absorbed:
            _extend(graph, node, consumers, producers, places, absorbed)
    kept = [node for node in graph.nodes if node not in absorbed]
    graph.nodes = sorted(kept, key=lambda node: places[node])
    graph.remove_dead()


def _bring_activations(graph: Graph) -> None:
    """An activation of what was only moved since a kernel computed it is applied before the moves, where it costs
    nothing: a detector's head is turned, and then goes through a sigmoid."""
    consumers, producers = graph.consumers(), graph.producers()
    ahead: dict[Node, Node] = {}  # the activation that now follows this node
    for node in graph.nodes:
        if node.op != "unary" or node.attributes["activation"] == "prelu":
            continue
        moves, value = [], node.input(0)
        while (move := producers.get(value)) is not None and move.op in ("reshape", "transpose"):
            if sole_consumer(graph.outputs, consumers, value) is None:
                break
            moves.append(move)
            value = move.input(0)
        source = producers.get(value)
        alone = sole_consumer(graph.outputs, consumers, value) is not None
        if not moves or source is None or source.op not in _EPILOGUES or not alone or source in ahead:
            continue
        moved = node.output
        node.inputs, node.outputs = [value], [Value(moved.name, value.dtype, value.shape)]
        moves[-1].inputs = [node.output]
        moves[0].outputs = [moved]
        ahead[source] = node
    if ahead:
        brought = set(ahead.values())
        kept = [node for node in graph.nodes if node not in brought]
        graph.nodes = [each for node in kept for each in ((node, ahead[node]) if node in ahead else (node,))]


def _take(node: Node, after: Node, places: dict[Node, int], absorbed: set[Node]) -> None:
    """The chain now ends where `after` was, and its result is `after`'s."""
    absorbed.add(after)
    node.absorb(after)
    node.outputs = after.outputs
    places[node] = places[after]


def _bias(
    graph: Graph, node: Node, consumers: dict[Value, list[Node]], places: dict[Node, int], absorbed: set[Node]
) -> None:
    """A constant added to each column of a product with constant weights."""
    after = sole_consumer(graph.outputs, consumers, node.output)
    if after is None or after.op != "binary" or after.attributes["function"] != "add" or node.input(1).data is None:
        return
    bias = after.input(0) if after.input(1) is node.output else after.input(1)
    columns = node.output.shape[-1]
    if (
        bias.data is None or bias.size != columns or bias.shape[-1:] != (columns,) or node.output.dtype != "float32"
        or after.output.shape != node.output.shape
    ):  # fmt: skip
        return
    node.inputs.append(Value(bias.name, bias.dtype, (columns,), bias.data.reshape(columns)))
    node.attributes["bias"] = 1
    _take(node, after, places, absorbed)


def _extend(
    graph: Graph, node: Node, consumers: dict[Value, list[Node]], producers: dict[Value, Node],
    places: dict[Node, int], absorbed: set[Node],
) -> bool:  # fmt: skip
    after = sole_consumer(graph.outputs, consumers, node.output)
    if after is None or after in absorbed or node.output.dtype != "float32" or after.output.dtype != "float32":
        return False
    if after.op == "unary":
        return _activation(node, after, places, absorbed)
    if after.op == "binary" and node.op in _EPILOGUES:
        return _residual(node, after, producers, places, absorbed)
    return False


def _activation(node: Node, after: Node, places: dict[Node, int], absorbed: set[Node]) -> bool:
    name = after.attributes["activation"]
    if node.attributes.get("activation") or name not in VECTORISED:
        return False
    if name == "prelu":
        if node.op not in CONVOLUTIONS:
            return False
        node.inputs.append(after.input(1))
        node.attributes["prelu"] = 1
    node.attributes.update(
        (key, after.attributes[key]) for key in ("activation", "alpha", "beta") if key in after.attributes
    )
    _take(node, after, places, absorbed)
    return True


def _residual(
    node: Node, after: Node, producers: dict[Value, Node], places: dict[Node, int], absorbed: set[Node]
) -> bool:
    if after.attributes["function"] != "add" or after.attributes.get("activation") or node.attributes.get("residual"):
        return False
    other = after.input(0) if after.input(1) is node.output else after.input(1)
    if other is node.output or other.data is not None:
        return False
    residual = _unpadded(other, producers.get(other)) if node.op in CONVOLUTIONS else other
    if residual.shape != node.output.shape and residual is other:
        return False
    # Arguments: x, w, bias, residual, slope.
    if residual is not other:
        node.absorb(producers[other])
    node.inputs.insert(2 + int(node.attributes.get("bias", 0)), residual)
    node.attributes["residual"] = 1
    if node.attributes.get("activation"):
        node.attributes["activation_first"] = 1
    _take(node, after, places, absorbed)
    return True


def _unpadded(value: Value, producer: Node | None) -> Value:
    """A residual with zeros for its last channels may be read without them."""
    if producer is None or producer.op != "pad" or producer.attributes["mode"] != "constant":
        return value
    pads = producer.attributes["pads"]
    channels_only = pads[5] > 0 and not any(pad for place, pad in enumerate(pads) if place != 5)
    if producer.attributes["value"] != 0.0 or "interior" in producer.attributes or not channels_only:
        return value
    return producer.input(0)
