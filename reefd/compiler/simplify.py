# SPDX-License-Identifier: Apache-2.0
"""Stage 3: the same function with fewer kernels. Every rule keeps the graph valid, so they run until none applies.

Batch normalisation needs no rule of its own: it was lowered to a scale and an offset for each channel, and those are
folded into the convolution before them.
"""

from collections.abc import Callable

import numpy as np

from reefd.compiler.ir import Graph, Node, Value

Rule = Callable[[Graph], bool]
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
_MAX_ROUNDS = 50


def simplify(graph: Graph) -> None:
    graph.remove_dead()
    rules: tuple[Rule, ...] = (_merge_equal, _merge_moves, _fold_channel_arithmetic, _fold_pads)
    for _ in range(_MAX_ROUNDS):
        changed = [rule(graph) for rule in rules]
        graph.remove_dead()
        if not any(changed):
            return


def sole_consumer(graph_outputs: list[Value], consumers: dict[Value, list[Node]], value: Value) -> Node | None:
    """The one node that reads a value, if there is exactly one and the value is no output."""
    readers = consumers.get(value, [])
    return readers[0] if len(readers) == 1 and value not in graph_outputs else None


def _merge_equal(graph: Graph) -> bool:
    """Two kernels that do the same to the same inputs are one."""
    seen: dict[tuple[object, ...], Node] = {}
    replaced: dict[Value, Value] = {}
    for node in graph.nodes:
        inputs = tuple(id(replaced.get(value, value)) if value is not None else 0 for value in node.inputs)
        attributes = tuple(sorted((key, repr(value)) for key, value in node.attributes.items()))
        shapes = tuple((value.shape, value.dtype) for value in node.writes())
        first = seen.setdefault((node.op, inputs, attributes, shapes), node)
        if first is not node:
            replaced.update(zip(node.writes(), first.writes(), strict=True))
            first.absorb(node)
    graph.replace(replaced)
    return bool(replaced)


def _merge_moves(graph: Graph) -> bool:
    """A reshape of a reshape, a transpose of a transpose, and moves that move nothing."""
    producers = graph.producers()
    replaced: dict[Value, Value] = {}
    changed = False
    for node in graph.nodes:
        if node.op not in ("reshape", "transpose"):
            continue
        value = node.input(0)
        before = producers.get(value)
        if before is not None and before.op == node.op:
            node.inputs[0] = before.input(0)
            changed = True
            if node.op == "transpose":
                node.attributes["perm"] = [before.attributes["perm"][axis] for axis in node.attributes["perm"]]
        value = node.input(0)
        same = (
            value.shape == node.output.shape
            if node.op == "reshape"
            else node.attributes["perm"] == [*range(value.rank)]
        )
        if same:
            replaced[node.output] = value
    graph.replace(replaced)
    return changed or bool(replaced)


def _fold_channel_arithmetic(graph: Graph) -> bool:
    """conv(x) * a + b, with one a and b for each channel, is a convolution with other weights."""
    consumers = graph.consumers()
    replaced: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op not in CONVOLUTIONS or node.attributes.get("activation"):
            continue
        after = sole_consumer(graph.outputs, consumers, node.output)
        if after is None or after.op != "binary" or after.output in replaced:
            continue
        folded = _fold_one(node, after)
        if folded:
            replaced[after.output] = node.output
            node.absorb(after)
            after.inputs = []
    graph.replace(replaced)
    graph.nodes = [node for node in graph.nodes if node.op != "binary" or node.inputs]
    return bool(replaced)


def _fold_one(conv: Node, after: Node) -> bool:
    function = after.attributes["function"]
    flipped = after.input(0) is not conv.output
    operand = after.input(0) if flipped else after.input(1)
    if operand.data is None or after.output.shape != conv.output.shape:
        return False
    channels = conv.output.shape[1]
    data = operand.data.astype(np.float64).reshape((1,) * (4 - operand.rank) + operand.shape)
    if data.shape not in ((1, channels, 1, 1), (1, 1, 1, 1)):
        return False
    values = np.broadcast_to(data.reshape(-1), (channels,))
    w = conv.input(1)
    bias = conv.inputs[2] if conv.attributes.get("bias") else None
    assert w.data is not None
    weights = w.data.astype(np.float64)
    offsets = np.zeros(channels) if bias is None or bias.data is None else bias.data.astype(np.float64)
    match function, flipped:
        case ("add", _):
            offsets = offsets + values
        case ("sub", False):
            offsets = offsets - values
        case ("sub", True):
            weights, offsets = -weights, values - offsets
        case ("mul", _):
            weights, offsets = weights * values[:, None, None, None], offsets * values
        case ("div", False):
            weights, offsets = weights / values[:, None, None, None], offsets / values
        case _:
            return False
    if not (np.isfinite(weights).all() and np.isfinite(offsets).all()):
        return False
    new_weights = np.ascontiguousarray(weights.astype(np.float32))
    new_bias = np.ascontiguousarray(offsets.astype(np.float32))
    name = bias.name if bias is not None else f"{conv.name}.bias"
    conv.inputs = [
        conv.inputs[0],
        Value(w.name, w.dtype, new_weights.shape, new_weights),
        Value(name, "float32", new_bias.shape, new_bias),
    ]
    conv.attributes["bias"] = 1
    return True


def _fold_pads(graph: Graph) -> bool:
    """Zeros round a feature map become the pads of the convolution that reads it."""
    producers = graph.producers()
    changed = False
    for node in graph.nodes:
        average = node.op == "pool2d" and node.attributes["mode"] == "average" and node.attributes["count_include_pad"]
        if node.op not in CONVOLUTIONS and not average:
            continue
        pad = producers.get(node.input(0))
        if pad is None or pad.op != "pad" or pad.attributes["mode"] != "constant" or pad.attributes["value"] != 0.0:
            continue
        pads = pad.attributes["pads"]
        if "interior" in pad.attributes or min(pads) < 0 or any(pads[axis] for axis in (0, 1, 4, 5)):
            continue
        top, left, bottom, right = node.attributes["pads"]
        node.attributes["pads"] = [top + pads[2], left + pads[3], bottom + pads[6], right + pads[7]]
        node.inputs[0] = pad.input(0)
        node.absorb(pad)
        changed = True
    return changed
