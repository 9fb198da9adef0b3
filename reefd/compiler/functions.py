# SPDX-License-Identifier: Apache-2.0
"""Operators that are defined by simpler ones: a model's own functions, and those of the standard that no kernel knows.

The standard's are expanded where they stand, because some of their bodies depend on the node and on its operands'
types.
"""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto

from reefd.compiler.ir import Value
from reefd.compiler.tensors import TENSOR_TYPES


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
    schema = onnx.defs.get_schema(proto.op_type, opset, proto.domain)
    names = {attribute.name for attribute in proto.attribute}
    for name, attribute in schema.attributes.items():
        if name not in names and attribute.default_value.name:
            proto.attribute.append(attribute.default_value)
