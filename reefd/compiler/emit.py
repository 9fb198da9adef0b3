# SPDX-License-Identifier: Apache-2.0
"""Stage 7: the plan as a resource's schedule and weights."""

import hashlib
import math
from typing import Any

import numpy as np

from reefd.compiler.ir import Graph, Node, Value
from reefd.compiler.memory import Plan
from reefd.compiler.progress import SILENT, Progress
from reefd.resource.schema import Access, Attribute, Kernel, Kind, ModelFile, Precision, Source, Storage

_BEYOND_FLOAT = 1e308  # JSON has no infinity; as a float32 this is one


def emit(
    graph: Graph, plan: Plan, name: str, source: Source, precision: Precision = "float32", progress: Progress = SILENT
) -> tuple[ModelFile, dict[str, np.ndarray]]:
    """The schedule, and the weights by the names of their storages. In half precision, matrices are rounded to halves;
    they stay 32-bit floats here, and are written as what they have become."""
    return _Emitter(graph, plan, precision, progress).model(name, source)


class _Emitter:
    def __init__(self, graph: Graph, plan: Plan, precision: Precision, progress: Progress) -> None:
        self.graph = graph
        self.precision = precision
        self.progress = progress
        self.plan = plan
        self.storage: list[Storage] = []
        self.weights: dict[str, np.ndarray] = {}
        self.indices: dict[tuple[object, ...], int] = {}

    def model(self, name: str, source: Source) -> tuple[ModelFile, dict[str, np.ndarray]]:
        inputs = [self._owner(value, "input", value.name) for value in self.graph.inputs]
        owners = {output: owner for owner, output in self.plan.outputs.items()}
        outputs = [self._owner(owners[output], "output", output) for output in self.graph.output_names]
        kernels = []
        for place, node in enumerate(self.plan.kernels):
            self.progress.step(place, len(self.plan.kernels), node.name)
            kernels.append(self._kernel(node))
        file = ModelFile(
            name=name, storage=self.storage, kernels=kernels, inputs=inputs, outputs=outputs,
            arena_bytes=self.plan.arena_bytes, live_bytes=self.plan.live_bytes, precision=self.precision, version=1,
            source=source,
        )  # fmt: skip
        return file, self.weights

    def _owner(self, value: Value, kind: Kind, name: str) -> int:
        return self._add((value, 0, value.shape, value.dtype), _storage(value, name, kind))

    def _add(self, key: tuple[object, ...], storage: Storage) -> int:
        if key not in self.indices:
            self.indices[key] = len(self.storage)
            self.storage.append(storage)
        return self.indices[key]

    def _index(self, value: Value) -> int:
        """The storage of a value as a kernel sees it."""
        if value.data is not None:
            return self._weight(value)
        place = self.plan.places[value]
        key = (place.owner, place.offset, value.shape, value.dtype)
        if key in self.indices:
            return self.indices[key]
        if place.owner in self.plan.offsets:
            start = self.plan.offsets[place.owner]
            if place.offset == 0:
                return self._add(key, _storage(value, value.name, "arena", start))
            # A part is a view: a device that stores elements of another size finds it by what it is a part of.
            whole = (place.owner, 0, place.owner.shape, place.owner.dtype)
            base = self._add(whole, _storage(place.owner, place.owner.name, "arena", start))
            return self._add(key, _storage(value, value.name, "arena", place.offset, base))
        kind: Kind = "output" if place.owner in self.plan.outputs else "input"
        base = self.indices[place.owner, 0, place.owner.shape, place.owner.dtype]
        return self._add(key, _storage(value, value.name, kind, place.offset, base))

    def _weight(self, value: Value) -> int:
        assert value.data is not None
        data = np.asarray(value.data, order="C")  # of any rank, 0 too
        if self.precision == "float16":
            data = _rounded(data)
        content = hashlib.sha256(data.reshape(-1).data.cast("B") if data.size else b"").digest()
        key = ("weight", content, value.shape, value.dtype)
        if key in self.indices:
            return self.indices[key]
        name, count = value.name or "constant", 1
        while name in self.weights:
            name, count = f"{value.name}#{count}", count + 1
        self.weights[name] = data
        return self._add(key, _storage(value, name, "weight"))

    def _kernel(self, node: Node) -> Kernel:
        reads, writes = list(node.reads()), list(node.writes())
        read: Access = "read"
        write: Access = "write"
        return Kernel(
            name=node.name,
            op=node.op,
            args=[self._index(value) for value in (*reads, *writes)],
            access=[*[read] * len(reads), *[write] * len(writes)],
            attributes={key: _attribute(value) for key, value in node.attributes.items()},
            nodes=node.sources,
        )


def _rounded(data: np.ndarray) -> np.ndarray:
    """A matrix to the nearest halves. Vectors take no room, and what halves cannot hold stays what it is."""
    if data.dtype != np.float32 or data.ndim < 2 or not np.all(np.abs(data) <= np.finfo(np.float16).max):
        return data
    return data.astype(np.float16).astype(np.float32)


def _storage(value: Value, name: str, kind: Kind, offset: int = 0, base: int = -1) -> Storage:
    shape = [int(extent) for extent in value.shape]
    return Storage(name, value.size, value.dtype, kind, shape, offset, base)


def _attribute(value: Any) -> Attribute:
    if isinstance(value, list | tuple):
        return [_number(item) for item in value]
    return value if isinstance(value, str) else _number(value)


def _number(value: Any) -> int | float:
    if isinstance(value, float | np.floating):
        number = float(value)
        return math.copysign(_BEYOND_FLOAT, number) if math.isinf(number) else number
    return int(value)
