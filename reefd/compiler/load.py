# SPDX-License-Identifier: Apache-2.0
"""Stage 1: an ONNX file becomes a graph whose shapes are all known and whose constants are folded.

One walk in topological order does both: a node whose inputs are constants is evaluated at once (Shape needs only a
shape), so that every later shape that was computed from it is a constant too. The file is not trusted.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from reefd.compiler import functions
from reefd.compiler.errors import CompileError, Problem
from reefd.compiler.folding import evaluate, infer
from reefd.compiler.ir import Graph, Node, Value, constants
from reefd.compiler.lower import unsupported
from reefd.compiler.progress import SILENT, Progress
from reefd.compiler.tensors import ELEMENT_TYPES, tensor_array, type_name

MAX_FOLDED_BYTES = 1 << 30  # what a file that holds no weights may have computed; with weights, also four times those
MAX_NODES = 100_000
MAX_TENSOR_BYTES = 64 << 30
_MAX_FILE = 2 << 30  # protobuf's own limit
_MAX_DEPTH = 16  # of functions that are defined by functions
Known = Callable[[str, str], bool]
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def load(path: Path, shapes: Mapping[str, Sequence[int]], supported: Known, progress: Progress = SILENT) -> Graph:
    """Reads a file. `shapes` fixes inputs with dynamic dimensions; `supported(domain, op)` says which operators later
    stages know, others are expanded where ONNX defines them by simpler ones. CompileError names all that is wrong."""
    try:
        if path.stat().st_size > _MAX_FILE:
            raise CompileError(str(path), [Problem("larger than 2 GiB; keep the weights in external data")])
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise CompileError(str(path), [Problem(error.strerror or "cannot be read")]) from None
    except CompileError:
        raise
    except Exception as error:  # protobuf's DecodeError is not importable by one name across its versions
        raise CompileError(str(path), [Problem(f"not an ONNX file: {error}")]) from None
    return from_model(model, path, shapes, supported, progress)


def from_model(
    model: ModelProto, path: Path, shapes: Mapping[str, Sequence[int]], supported: Known, progress: Progress = SILENT
) -> Graph:
    """As load, for a model that is in memory. `path` names it in errors and is where its external data lies."""
    try:
        nodes = functions.expanded_nodes(model)
    except ValueError as error:
        raise CompileError(str(path), [Problem(str(error))]) from None
    if nodes > MAX_NODES:
        raise CompileError(str(path), [Problem(f"{nodes} nodes, at most {MAX_NODES} are allowed")])
    _take_in(model, path)
    for info in model.graph.output:  # what is declared of an output is not used: a file need not say its shape
        if info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape"):
            info.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker raises several types, with the whole story in the text
        raise CompileError(str(path), [Problem(f"not a valid ONNX model: {_first_line(error)}")]) from None
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:  # as above
            raise CompileError(str(path), [Problem(f"its functions: {_first_line(error)}")]) from None
    loader = _Loader(model, path, shapes, supported, progress)
    try:
        return loader.graph()
    except CompileError as error:  # with what the next stage would say of the nodes that are known
        raise CompileError(str(path), [*error.problems, *unsupported(loader.nodes)]) from None


def _take_in(model: ModelProto, path: Path) -> None:
    """Puts external data into the model, so that what is checked is what is used."""
    problems: list[Problem] = []
    size = 0
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        try:
            array = tensor_array(tensor, path.parent)
        except ValueError as error:
            problems.append(Problem(f"initializer {tensor.name!r}: {error}"))
            continue
        size += array.nbytes
        if size > _MAX_FILE:
            problems.append(Problem("more than 2 GiB of external data"))
            break
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    if problems:
        raise CompileError(str(path), problems)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class _Loader:
    def __init__(
        self, model: ModelProto, path: Path, shapes: Mapping[str, Sequence[int]], supported: Known, progress: Progress
    ) -> None:
        self.supported = supported
        self.progress = progress
        self.model = model
        self.path = path
        self.shapes = dict(shapes)
        self.problems: list[Problem] = []
        self.opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
        self.nodes: list[Node] = []
        self.constant_bytes = 0
        self.most_constants = MAX_FOLDED_BYTES
        self.visited = 0
        self.depth = 0

    def graph(self) -> Graph:
        proto = self.model.graph
        values: dict[str, Value | None] = {}
        self._initializers(proto, values)
        inputs = [self._input(info) for info in proto.input if info.name not in values]
        for name in self.shapes:
            self.problems.append(Problem(f"--shape names {name!r}, which is not an input of the model"))
        self._raise()
        values.update((value.name, value) for value in inputs)
        self._walk(proto.node, values)
        outputs: list[Value] = []
        for name, count in Counter(info.name for info in proto.output).items():
            if count > 1:
                self.problems.append(Problem(f"output {name!r} is declared {count} times"))
        for info in proto.output:
            value = values.get(info.name)
            if value is None and not self.problems:
                self.problems.append(Problem(f"output {info.name!r} is computed by no node"))
            elif value is not None:
                outputs.append(value)
        self._raise()
        taken = [value for value in inputs if value.data is None]
        return Graph(proto.name or self.path.stem, taken, outputs, [info.name for info in proto.output], self.nodes)

    def _raise(self) -> None:
        if self.problems:
            raise CompileError(str(self.path), self.problems)

    def _initializers(self, proto: GraphProto, values: dict[str, Value | None]) -> None:
        for tensor in proto.initializer:
            array = self._array(tensor, f"initializer {tensor.name!r}")
            if array is not None:
                values[tensor.name] = _constant(tensor.name, array)
                self.most_constants += 4 * array.nbytes
        if proto.sparse_initializer:
            self.problems.append(Problem("sparse initializers are not supported", nearest="dense ones"))

    def _array(self, tensor: TensorProto, what: str) -> np.ndarray | None:
        try:
            return tensor_array(tensor, self.path.parent)
        except ValueError as error:
            self.problems.append(Problem(f"{what}: {error}"))
            return None

    def _input(self, info: ValueInfoProto) -> Value:
        what = f"input {info.name!r}"
        given = self.shapes.pop(info.name, None)
        if not info.type.HasField("tensor_type"):
            self.problems.append(Problem(f"{what} is not a tensor"))
            return Value(info.name, "float32", ())
        tensor = info.type.tensor_type
        dtype = ELEMENT_TYPES.get(tensor.elem_type, "")
        if not dtype:
            self.problems.append(Problem(f"{what} has element type {type_name(tensor.elem_type)}"))
        declared = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
        if not tensor.HasField("shape"):
            declared = ["?"] * len(given or ["?"])
        if given is not None:
            if len(given) != len(declared) or any(
                isinstance(want, int) and want != have for want, have in zip(declared, given, strict=False)
            ):
                self.problems.append(Problem(f"{what} is declared as {_dims(declared)}, --shape says {_dims(given)}"))
            declared = list(given)
        if any(not isinstance(extent, int) or extent < 0 for extent in declared):
            example = _dims([extent if isinstance(extent, int) else 1 for extent in declared])
            self.problems.append(
                Problem(
                    f"{what} has dynamic dimensions ({_dims(declared)}); fix them, e.g. --shape {info.name}={example}"
                )
            )
            declared = [1] * len(declared)
        value = Value(info.name, dtype or "float32", tuple(int(extent) for extent in declared))
        most = math.prod(max(extent, 1) for extent in value.shape) * np.dtype(value.dtype).itemsize
        if most > MAX_TENSOR_BYTES:
            self.problems.append(Problem(f"{what} takes {most} bytes, more than is allowed"))
        elif value.size == 0:  # no request can bring anything else
            value.data = np.zeros(value.shape, value.dtype)
        return value

    def _walk(self, nodes: Sequence[NodeProto], values: dict[str, Value | None]) -> None:
        values[""] = None
        unknown: set[str] = set()
        for place, proto in enumerate(nodes):
            if self.depth == 0:
                self.progress.step(place, len(nodes), _name(proto))
            missing = [name for name in proto.input if name not in values]
            if missing:
                if not unknown.intersection(missing):
                    self._problem(proto, f"input {missing[0]!r} is computed by no earlier node")
                unknown.update(proto.output)
                continue
            if not self._visit(proto, values) or any(name not in values for name in proto.output):
                unknown.update(proto.output)

    def _problem(self, proto: NodeProto, reason: str, nearest: str = "") -> None:
        self.problems.append(Problem(reason, _name(proto), proto.op_type, "", nearest))

    def _visit(self, proto: NodeProto, values: dict[str, Value | None]) -> bool:
        """Adds a node, or what it was folded to. False: its outputs are unknown, and a problem says why."""
        inputs = [values[name] for name in proto.input]
        if proto.op_type == "If" and inputs[0] is not None and inputs[0].data is not None:
            return self._branch(proto, bool(inputs[0].data), values)
        if proto.op_type == "Constant" and proto.domain in ("", "ai.onnx"):
            return self._constant_node(proto, values)
        opset = self.opsets.get(proto.domain or "ai.onnx", 1)
        self.visited += 1
        if self.visited > MAX_NODES:
            raise CompileError(
                str(self.path), [Problem(f"more than {MAX_NODES} nodes once its functions are expanded")]
            )
        known = self.supported(proto.domain, proto.op_type)
        if not known and not constants(inputs) and self._expand(proto, inputs, opset, values):
            return True
        try:
            types = infer(proto, inputs, opset, self.model.opset_import)
        except ValueError as error:
            self._problem(proto, str(error))
            return False
        size = sum(value.bytes for value in types.values())
        if size > MAX_TENSOR_BYTES:
            self._problem(proto, f"its results take {size} bytes, more than is allowed")
            return False
        foldable = constants(inputs) and proto.op_type not in _RANDOM
        if foldable or proto.op_type in ("Shape", "Size"):
            self.constant_bytes += size
            if self.constant_bytes > self.most_constants:
                self._problem(proto, f"its constant result takes {size} bytes, more than is allowed")
                return False
            folded = evaluate(proto, inputs, opset)
            if folded is not None:
                for name, array in folded.items():
                    values[name] = _constant(name, array)
                return True
        attributes = self._attributes(proto)
        outputs = [types[name] if name else None for name in proto.output]
        self.nodes.append(
            Node(
                proto.op_type, _name(proto), inputs, outputs, attributes, opset,
                "" if proto.domain == "ai.onnx" else proto.domain,
            )
        )  # fmt: skip
        values.update((name, types[name]) for name in proto.output if name)
        return True

    def _branch(self, proto: NodeProto, condition: bool, values: dict[str, Value | None]) -> bool:
        """An If whose condition is constant is the branch it takes."""
        wanted = "then_branch" if condition else "else_branch"
        body = next(attribute.g for attribute in proto.attribute if attribute.name == wanted)
        inner = dict(values)
        self._initializers(body, inner)
        self._walk(body.node, inner)
        for outer, info in zip(proto.output, body.output, strict=True):
            value = inner.get(info.name)
            if value is None:
                return False
            values[outer] = value
        return True

    def _expand(
        self, proto: NodeProto, inputs: list[Value | None], opset: int, values: dict[str, Value | None]
    ) -> bool:
        """Puts a function's body in the place of its node. False: it has none, or one that does not fit either."""
        if self.depth >= _MAX_DEPTH:
            return False
        functions.defaults(proto, opset)
        function = functions.body(proto, inputs, opset)
        if function is None:
            return False
        inner: dict[str, Value | None] = dict.fromkeys(function.input)
        inner.update(zip(function.input, inputs, strict=False))
        prefix = _name(proto)
        for place, node in enumerate(function.node):
            node.name = f"{prefix}/{node.name or node.op_type}.{place}"
        before, opsets = len(self.problems), self.opsets
        self.opsets = {**opsets, **{entry.domain or "ai.onnx": entry.version for entry in function.opset_import}}
        self.depth += 1
        self._walk(function.node, inner)
        self.depth -= 1
        self.opsets = opsets
        results = dict(zip(proto.output, function.output, strict=False))
        if len(self.problems) > before or any(inner.get(result) is None for name, result in results.items() if name):
            return len(self.problems) > before
        values.update((name, inner[result]) for name, result in results.items() if name)
        return True

    def _constant_node(self, proto: NodeProto, values: dict[str, Value | None]) -> bool:
        attribute = proto.attribute[0]
        if attribute.name == "value":
            array = self._array(attribute.t, f"node {_name(proto)!r} (Constant)")
        elif attribute.name in ("value_float", "value_floats"):
            array = np.asarray(onnx.helper.get_attribute_value(attribute), np.float32)
        elif attribute.name in ("value_int", "value_ints"):
            array = np.asarray(onnx.helper.get_attribute_value(attribute), np.int64)
        else:
            self._problem(proto, f"a constant given as {attribute.name}", "value, value_float(s), value_int(s)")
            return False
        if array is None:
            return False
        values[proto.output[0]] = _constant(proto.output[0], array)
        return True

    def _attributes(self, proto: NodeProto) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for attribute in proto.attribute:
            match attribute.type:
                case AttributeProto.TENSOR:
                    attributes[attribute.name] = self._array(attribute.t, f"node {proto.name!r}, {attribute.name}")
                case AttributeProto.STRING:
                    attributes[attribute.name] = attribute.s.decode("utf-8", "replace")
                case AttributeProto.STRINGS:
                    attributes[attribute.name] = [text.decode("utf-8", "replace") for text in attribute.strings]
                case AttributeProto.INT | AttributeProto.FLOAT:
                    attributes[attribute.name] = onnx.helper.get_attribute_value(attribute)
                case AttributeProto.INTS | AttributeProto.FLOATS:
                    attributes[attribute.name] = list(onnx.helper.get_attribute_value(attribute))
                case _:
                    attributes[attribute.name] = attribute
        return attributes


def _name(proto: NodeProto) -> str:
    """Its name, or that of the first thing it computes."""
    return proto.name or next((name for name in proto.output if name), proto.op_type)


def _constant(name: str, array: np.ndarray) -> Value:
    return Value(name, array.dtype.name, array.shape, array)


def _dims(shape: Sequence[int | str]) -> str:
    return "x".join(str(extent) for extent in shape)
