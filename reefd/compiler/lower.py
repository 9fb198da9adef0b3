# SPDX-License-Identifier: Apache-2.0
"""Stage 2's driver: every node through the operator table, every problem collected before anything is reported."""

import difflib
from collections.abc import Sequence

import numpy as np

from reefd.compiler.errors import CompileError, Problem, Unsupported
from reefd.compiler.ir import Graph, Node, Value
from reefd.compiler.lowering.builder import Builder
from reefd.compiler.operators import OPERATORS, supported
from reefd.compiler.progress import SILENT, Progress


def lower(graph: Graph, path: str, progress: Progress = SILENT) -> Graph:
    """The same graph in kernels. CompileError lists every unsupported operator, attribute and type."""
    build = Builder()
    replaced, problems = _lower_nodes(build, graph.nodes, progress)
    if problems:
        raise CompileError(path, problems)
    outputs = [replaced.get(value, value) for value in graph.outputs]
    # What has no elements needs no memory and is known: it is no part of a request.
    named = [(value, name) for value, name in zip(outputs, graph.output_names, strict=True) if value.size]
    if not named:
        nearest = "a model that has another output"
        raise CompileError(
            path, [Problem(f"output {name!r} has no elements", nearest=nearest) for name in graph.output_names]
        )
    return Graph(graph.name, graph.inputs, [value for value, _ in named], [name for _, name in named], build.nodes)


def unsupported(nodes: Sequence[Node]) -> list[Problem]:
    """What stands in the way of these nodes, wherever their results may go."""
    return _lower_nodes(Builder(), nodes, SILENT)[1]


def _lower_nodes(build: Builder, nodes: Sequence[Node], progress: Progress) -> tuple[dict[Value, Value], list[Problem]]:
    replaced: dict[Value, Value] = {}
    problems: list[Problem] = []
    for place, node in enumerate(nodes):
        progress.step(place, len(nodes), node.name)
        node.inputs = [None if value is None else replaced.get(value, value) for value in node.inputs]
        build.source = node.name
        if all(value.size == 0 for value in node.writes()):  # nothing to compute
            for value in node.writes():
                value.data = np.zeros(value.shape, value.dtype)
            continue
        try:
            results = _lower_node(build, node)
        except Unsupported as error:
            problems.append(Problem(error.reason, node.name, node.op, error.attribute, error.nearest))
            continue
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            # Shape inference accepts what contradicts itself. The kernel's own words are better than none.
            problems.append(Problem(f"its operands and attributes do not fit: {error}", node.name, node.op))
            continue
        for declared, value in zip(node.writes(), results, strict=True):
            replaced[declared] = value
    return replaced, problems


def _lower_node(build: Builder, node: Node) -> list[Value]:
    if not supported(node.domain, node.op):
        name = f"{node.domain}.{node.op}" if node.domain else node.op
        close = difflib.get_close_matches(node.op, OPERATORS, 1, 0.75)
        raise Unsupported(f"operator {name} has no kernel", nearest=close[0] if close else "")
    operator = OPERATORS[node.op]
    unknown = [name for name in node.attributes if name not in operator.attributes]
    if unknown:
        raise Unsupported("not supported", attribute=", ".join(unknown), nearest=", ".join(sorted(operator.attributes)))
    if node.inputs and node.inputs[0] is not None and node.inputs[0].dtype not in operator.dtypes:
        raise Unsupported(f"of type {node.inputs[0].dtype}", nearest=", ".join(sorted(operator.dtypes)))
    half = not operator.moves and any(value.dtype == "float16" for value in (*node.reads(), *node.writes()))
    result = operator.lower(build, _widened(build, node) if half else node)
    results = result if isinstance(result, list) else [result]
    if half:
        results = [build.cast(value, declared.dtype) for value, declared in zip(results, node.writes(), strict=True)]
    for declared, value in zip(node.writes(), results, strict=True):
        if declared.shape != value.shape or declared.dtype != value.dtype:
            raise Unsupported(
                f"its output {declared.name!r} should be {declared.dtype} {list(declared.shape)}, "
                f"its kernel gives {value.dtype} {list(value.shape)}"
            )
    return results


def _widened(build: Builder, node: Node) -> Node:
    """16-bit floats are computed with as 32-bit ones."""

    def wide(value: Value | None) -> Value | None:
        return build.cast(value, "float32") if value is not None and value.dtype == "float16" else value

    outputs: list[Value | None] = [
        Value(value.name, "float32", value.shape) if value is not None and value.dtype == "float16" else value
        for value in node.outputs
    ]
    inputs = [wide(value) for value in node.inputs]
    return Node(node.op, node.name, inputs, outputs, node.attributes, node.opset, node.domain)
