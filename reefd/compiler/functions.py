# SPDX-License-Identifier: Apache-2.0
"""Operators that are defined by simpler ones: a model's own functions, and those of the standard that no kernel
knows."""

from collections.abc import Callable

import onnx
import onnx.inliner
from onnx import ModelProto

_MAX_DEPTH = 8  # functions that use functions


def expand(model: ModelProto, supported: Callable[[str, str], bool]) -> ModelProto:
    """The model with every function inlined that later stages would not know. What cannot be expanded stays as it is
    and is reported where its node is translated."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for _ in range(_MAX_DEPTH):
        wanted = {
            (node.domain, node.op_type)
            for node in model.graph.node
            if not supported(node.domain, node.op_type) and _is_function(node, opsets)
        }
        if not wanted:
            break
        model = onnx.inliner.inline_selected_functions(model, sorted(wanted), inline_schema_functions=True)
    return model


def _is_function(node: onnx.NodeProto, opsets: dict[str, int]) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]
