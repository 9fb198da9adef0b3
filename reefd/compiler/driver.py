# SPDX-License-Identifier: Apache-2.0
"""The stages in order, what they cost, and what came out."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from reefd import resource
from reefd.compiler.emit import emit
from reefd.compiler.errors import CompileError, Problem
from reefd.compiler.fuse import fuse
from reefd.compiler.ir import Graph
from reefd.compiler.layout import lay_out
from reefd.compiler.load import load
from reefd.compiler.lower import lower
from reefd.compiler.memory import plan
from reefd.compiler.operators import supported
from reefd.compiler.patterns import find_patterns
from reefd.compiler.progress import SILENT, Progress
from reefd.compiler.simplify import simplify
from reefd.resource.read import read_code
from reefd.resource.schema import ModelFile, Precision, Source
from reefd.resource.tensors import narrowed

if TYPE_CHECKING:
    from reefd.resource.code import Code

_MAX_NAME = 63

STAGES = ("load", "lower", "simplify", "patterns", "fuse", "layout", "memory", "emit", "code", "write")
COMPILER = "reefd compiler 4"  # changes whenever the same model would become another resource
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the result besides the model."""

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)  # fixes inputs with dynamic dimensions
    precision: Precision = "float32"
    processors: Sequence[str] = ()  # GPUs to make code for, as targets.parse_targets names them

    def __str__(self) -> str:
        words = [f"{name}={'x'.join(map(str, shape))}" for name, shape in sorted(self.shapes.items())]
        words += ["fp16"] if self.precision == "float16" else []
        return " ".join([*words, *self.processors])


@dataclass(frozen=True, slots=True)
class Summary:
    """What a compilation gave. Sizes in bytes, times in seconds."""

    name: str
    nodes: int  # of the ONNX graph after folding
    kernels: int
    weight_bytes: int  # as they are stored
    arena_bytes: int
    live_bytes: int  # lower bound of arena_bytes for this schedule
    seconds: Mapping[str, float]  # by stage
    code_bytes: Mapping[str, int] = field(default_factory=dict)  # by GPU
    fresh: bool = False  # the folder was up to date and nothing was done


@dataclass(frozen=True, slots=True)
class Compiled:
    model: ModelFile
    weights: dict[str, np.ndarray]
    summary: Summary
    code: Mapping[str, "Code"] = field(default_factory=dict)


def compile_model(
    path: Path, folder: Path, *, options: Options | None = None, name: str = "", only_if_stale: bool = False,
    progress: Progress = SILENT,
) -> Summary:  # fmt: skip
    """Compiles an ONNX file into a resource folder, which is written whole or not at all. CompileError: what is wrong
    with the model; ResourceError: what is wrong with the folder."""
    name, options = name or folder.absolute().name, options or Options()
    source = _source(path, options)
    if only_if_stale and (existing := _up_to_date(folder, source, name, options.processors)):
        return existing
    compilation = _Compilation(str(path), name, source, options, progress)
    graph = compilation.timed("load", lambda: load(path, options.shapes, supported, progress))
    compiled = compilation.run(graph)
    compilation.timed("write", lambda: resource.write(folder, compiled.model, compiled.weights, compiled.code))
    return replace(compiled.summary, seconds=compilation.seconds)


def compile_to_memory(graph: Graph, name: str, path: str = "", options: Options | None = None) -> Compiled:
    """Compiles a graph that is loaded already, without writing it."""
    return _Compilation(path, name, Source(path, "", "", COMPILER), options or Options(), SILENT).run(graph)


class _Compilation:
    def __init__(self, path: str, name: str, source: Source, options: Options, progress: Progress) -> None:
        self.path, self.name, self.source, self.options, self.progress = path, name, source, options, progress
        self.seconds: dict[str, float] = {}

    def timed(self, stage: str, work: Callable[[], T]) -> T:
        self.progress.stage(stage)
        start = time.perf_counter()
        result = work()
        self.seconds[stage] = time.perf_counter() - start
        return result

    def run(self, graph: Graph) -> Compiled:
        nodes, precision = len(graph.nodes), self.options.precision
        self._check_names(graph)
        lowered = self.timed("lower", lambda: lower(graph, self.path, self.progress))
        self.timed("simplify", lambda: simplify(lowered))
        self.timed("patterns", lambda: find_patterns(lowered))
        self.timed("fuse", lambda: fuse(lowered))
        laid = self.timed("layout", lambda: lay_out(lowered))
        planned = self.timed("memory", lambda: plan(laid))
        model, weights = self.timed(
            "emit", lambda: emit(laid, planned, self.name, self.source, precision, self.progress)
        )
        code = self.timed("code", lambda: {each: self._code(model, weights, each) for each in self.options.processors})
        summary = Summary(
            self.name, nodes, len(model.kernels), stored_bytes(model, weights), planned.arena_bytes, planned.live_bytes,
            self.seconds, {name: sum(array.nbytes for array in made.objects.values()) for name, made in code.items()},
        )  # fmt: skip
        return Compiled(model, weights, summary, code)

    def _code(self, model: ModelFile, weights: Mapping[str, np.ndarray], processor: str) -> "Code":
        from reefd.compiler.targets import build_code  # with the GPU's code generation, which few compilations need

        return build_code(model, weights, processor, self.path, self.progress)

    def _check_names(self, graph: Graph) -> None:
        """A region holds 63 bytes of each name."""
        named = [("the model", self.name, "another --name")]
        named += [("input", value.name, "a shorter name") for value in graph.inputs]
        named += [("output", name, "a shorter name") for name in graph.output_names]
        problems = [
            Problem(f"{what} {name[:100]!r}: a name has 1 to {_MAX_NAME} bytes, all printable", nearest=nearest)
            for what, name, nearest in named
            if not 0 < len(name.encode("utf-8", "replace")) <= _MAX_NAME or not name.isprintable()
        ]
        if problems:
            raise CompileError(self.path, problems)


def _up_to_date(folder: Path, source: Source, name: str, processors: Sequence[str]) -> Summary | None:
    try:
        existing = resource.read(folder)
    except resource.ResourceError:
        return None
    model = existing.model
    if model.source != source or model.name != name or not _current_code(existing, processors):
        return None
    weight_bytes = stored_bytes(model, existing.weights)
    return Summary(
        name, 0, len(model.kernels), weight_bytes, model.arena_bytes, model.live_bytes, {}, fresh=True
    )  # fmt: skip


def _current_code(existing: resource.Resource, processors: Sequence[str]) -> bool:
    """The model's source does not tell which kernels its GPU code was made from."""
    if not processors:
        return True
    from reefd.gpu.stored import current

    try:
        codes = [read_code(existing, processor) for processor in processors]
    except resource.ResourceError:
        return False
    return all(code is not None and current(existing, code.file) for code in codes)


def stored_bytes(model: ModelFile, weights: Mapping[str, np.ndarray]) -> int:
    """What the weights take in the resource."""
    stored = narrowed(weights) if model.precision == "float16" else weights
    return sum(array.nbytes for array in stored.values())


def _source(path: Path, options: Options) -> Source:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CompileError(str(path), [Problem(error.strerror or "cannot be read")]) from None
    return Source(path.name, digest, str(options), COMPILER)
