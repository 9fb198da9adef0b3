# SPDX-License-Identifier: Apache-2.0
"""Operators that are defined by simpler ones: a model's own functions, and those of the standard that no kernel knows.

The standard's are expanded where they stand, because some of their bodies depend on the node and on its operands'
types.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from reefd.compiler.ir import Value
from reefd.compiler.tensors import TENSOR_TYPES

Key = tuple[str, str, str]  # domain, name, overload
_MAX_CALLS = 100


def expanded_nodes(model: ModelProto) -> int:
    """How many nodes a model has once the calls of its own functions are replaced by their bodies. ValueError: they
    call themselves, or each other more than 100 deep. Nothing is expanded for it: a few lines may stand for 2^30."""
    known = {(function.domain, function.name, function.overload): function for function in model.functions}
    sizes: dict[Key, int] = {}

    def size(key: Key, depth: int) -> int:
        if depth > _MAX_CALLS:
            raise ValueError(f"function {key[1]!r} calls itself, or functions call each other too deeply")
        if key not in sizes:
            sizes[key] = count(known[key].node, depth)
        return sizes[key]

    def count(nodes: Iterable[NodeProto], depth: int) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += size(key, depth + 1) if key in known else 1
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    total += count(graph.node, depth)
        return total

    return count(model.graph.node, 0)


def body(proto: NodeProto, inputs: Sequence[Value | None], opset: int) -> FunctionProto | None:
    """The standard's definition of a node by simpler operators, None where there is none."""
    try:
        schema: Any = onnx.defs.get_schema(proto.op_type, opset, proto.domain)  # its stubs lack the functions
    except onnx.defs.SchemaError:
        return None
    plain = [version for version in schema.function_opset_versions if version <= opset]
    dependent = [version for version in schema.context_dependent_function_opset_versions if version <= opset]
    if dependent:
        types = [
            b""
            if value is None
            else onnx.helper.make_tensor_type_proto(TENSOR_TYPES[value.dtype], value.shape).SerializeToString()
            for value in inputs
        ]
        content = schema.get_context_dependent_function_with_opset_version(
            max(dependent), proto.SerializeToString(), types
        )
    elif plain:
        content = schema.get_function_with_opset_version(max(plain))
    else:
        return None
    if not content:
        return None
    function = FunctionProto()
    function.ParseFromString(content)
    for node in function.node:
        _fill_in(node, proto, function)
    return function


def _fill_in(node: NodeProto, proto: NodeProto, function: FunctionProto) -> None:
    """Attributes that refer to the calling node's get its values, or the function's own defaults, or go."""
    given = {attribute.name: attribute for attribute in (*function.attribute_proto, *proto.attribute)}
    for place in reversed(range(len(node.attribute))):
        attribute = node.attribute[place]
        if attribute.ref_attr_name:
            source = given.get(attribute.ref_attr_name)
            name = attribute.name
            if source is None:
                del node.attribute[place]
            else:
                attribute.CopyFrom(source)
                attribute.name = name
        elif attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _fill_in(inner, proto, function)


def defaults(proto: NodeProto, opset: int) -> None:
    """Writes the standard's defaults into a node, for bodies that refer to them."""
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, proto.domain)
    except onnx.defs.SchemaError:
        return
    names = {attribute.name for attribute in proto.attribute}
    for name, attribute in schema.attributes.items():
        if name not in names and attribute.default_value.name:
            proto.attribute.append(attribute.default_value)
