# SPDX-License-Identifier: Apache-2.0
"""One ONNX node at a time: the types and shapes of its outputs, and its value where its inputs are constants."""

import warnings
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import NodeProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from reefd.compiler.ir import Value
from reefd.compiler.tensors import ELEMENT_TYPES, TENSOR_TYPES

# Operators whose shape the standard leaves to their function body; they change none.
_LIKE_INPUT = {"GroupNormalization", "MeanVarianceNormalization"}
_MAX_EQUATION = 256
_MAX_SHAPE_DATA = 4096  # elements of a constant that shape inference may look at


def infer(
    proto: NodeProto, inputs: Sequence[Value | None], opset: int, imports: Sequence[onnx.OperatorSetIdProto]
) -> dict[str, Value]:
    """The outputs by name. ValueError: an unknown operator, inputs that contradict each other, or a shape that only
    the data of a request would tell."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    if proto.op_type in _LIKE_INPUT and inputs[0] is not None:
        return {proto.output[0]: Value(proto.output[0], inputs[0].dtype, inputs[0].shape)}
    if proto.op_type == "Dropout" and inputs[0] is not None:  # before opset 12 nothing is said about the mask's shape
        kinds = [inputs[0].dtype, inputs[0].dtype if opset < 10 else "bool"]
        return {
            name: Value(name, kind, inputs[0].shape) for name, kind in zip(proto.output, kinds, strict=False) if name
        }
    if proto.op_type == "Einsum":
        _check_equation(proto)
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, domain)
    except onnx.defs.SchemaError:
        raise ValueError(f"no such operator in opset {opset} of domain {domain or 'ai.onnx'!r}") from None
    types: dict[str, TypeProto] = {}
    data = {}
    for name, value in zip(proto.input, inputs, strict=True):
        if value is None:
            continue
        types[name] = helper.make_tensor_type_proto(TENSOR_TYPES[value.dtype], value.shape)
        if value.data is not None and value.size <= _MAX_SHAPE_DATA:
            data[name] = numpy_helper.from_array(value.data, name)
    try:
        inferred = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=list(imports))
    except Exception as error:  # InferenceError and the bindings' own errors, with the story in the text
        raise ValueError(f"shape inference: {str(error).strip().splitlines()[-1]}") from None
    return {name: _value(name, inferred.get(name)) for name in proto.output if name}


def _check_equation(proto: NodeProto) -> None:
    """Shape inference takes for ever over some that make no sense."""
    for attribute in proto.attribute:
        terms = attribute.s.replace(b"->", b",").split(b",")
        if attribute.name == "equation" and (
            len(attribute.s) > _MAX_EQUATION or any(term.count(b".") not in (0, 3) for term in terms)
        ):
            raise ValueError(f"its equation {attribute.s[:80]!r} makes no sense")


def _value(name: str, inferred: TypeProto | None) -> Value:
    if inferred is None or not inferred.HasField("tensor_type"):
        raise ValueError(f"the type of its output {name!r} cannot be told before it runs")
    tensor = inferred.tensor_type
    if tensor.elem_type not in ELEMENT_TYPES:
        raise ValueError(f"its output {name!r} has an element type that is not supported")
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise ValueError(f"the shape of its output {name!r} depends on data that only a request brings")
    return Value(name, ELEMENT_TYPES[tensor.elem_type], tuple(dim.dim_value for dim in tensor.shape.dim))


def evaluate(proto: NodeProto, inputs: Sequence[Value | None], opset: int) -> dict[str, np.ndarray] | None:
    """The node's outputs, computed by ONNX's reference; None where that cannot be done."""
    if proto.op_type == "Shape":
        return _shape(proto, inputs)
    if proto.op_type == "Size" and inputs[0] is not None:
        return {proto.output[0]: np.asarray(inputs[0].size, np.int64)}
    if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in proto.attribute):
        return None
    feeds = {name: value.data for name, value in zip(proto.input, inputs, strict=True) if value is not None and name}
    names = [name for name in proto.output if name]
    graph = helper.make_graph(
        [proto], "constant",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
         for name, array in feeds.items() if array is not None],
        [onnx.ValueInfoProto(name=name) for name in names],
    )  # fmt: skip
    imports = [helper.make_opsetid(proto.domain, opset)]
    if proto.domain not in ("", "ai.onnx"):
        imports.append(helper.make_opsetid("", onnx.defs.onnx_opset_version()))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            model = helper.make_model(graph, opset_imports=imports)
            results = ReferenceEvaluator(model).run(names, feeds)
    except Exception:  # the reference lacks the operator or rejects the values: the kernel's compiler will say why
        return None
    arrays = [np.asarray(result) for result in results]
    if any(array.dtype.name not in TENSOR_TYPES for array in arrays):
        return None
    return dict(zip(names, arrays, strict=True))


def _shape(proto: NodeProto, inputs: Sequence[Value | None]) -> dict[str, np.ndarray] | None:
    if inputs[0] is None:
        return None
    bounds = {attribute.name: attribute.i for attribute in proto.attribute}
    shape = inputs[0].shape[slice(bounds.get("start", 0), bounds.get("end"))]
    return {proto.output[0]: np.asarray(shape, np.int64)}
