# SPDX-License-Identifier: Apache-2.0
"""The stages in order, what they cost, and what came out."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from reefd import resource
from reefd.compiler.emit import emit
from reefd.compiler.errors import CompileError, Problem
from reefd.compiler.fuse import fuse
from reefd.compiler.ir import Graph
from reefd.compiler.layout import lay_out
from reefd.compiler.load import load
from reefd.compiler.lower import lower
from reefd.compiler.memory import Plan, plan
from reefd.compiler.operators import supported
from reefd.compiler.patterns import find_patterns
from reefd.compiler.simplify import simplify
from reefd.resource.schema import ModelFile, Source

STAGES = ("load", "lower", "simplify", "patterns", "fuse", "layout", "memory", "emit", "write")
COMPILER = "reefd compiler 3"  # changes whenever the same model would become another resource
T = TypeVar("T")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a compilation gave. Sizes in bytes, times in seconds."""

    name: str
    nodes: int  # of the ONNX graph after folding
    kernels: int
    weight_bytes: int
    arena_bytes: int
    live_bytes: int  # lower bound of arena_bytes for this schedule
    seconds: Mapping[str, float]  # by stage
    fresh: bool = False  # the folder was up to date and nothing was done


@dataclass(frozen=True, slots=True)
class Compiled:
    model: ModelFile
    weights: dict[str, np.ndarray]
    summary: Summary


def compile_model(
    path: Path, folder: Path, *, shapes: Mapping[str, Sequence[int]] | None = None, name: str = "",
    only_if_stale: bool = False, progress: Progress | None = None,
) -> Summary:  # fmt: skip
    """Compiles an ONNX file into a resource folder, which is written whole or not at all. `shapes` fixes inputs with
    dynamic dimensions. CompileError: what is wrong with the model; ResourceError: what is wrong with the folder."""
    name = name or folder.name
    source = _source(path, shapes or {})
    if only_if_stale:
        try:
            existing = resource.read(folder)
        except resource.ResourceError:
            existing = None
        if existing is not None and existing.model.source == source and existing.model.name == name:
            weight_bytes = sum(array.nbytes for array in existing.weights.values())
            model = existing.model
            return Summary(name, 0, len(model.kernels), weight_bytes, model.arena_bytes, 0, {}, True)
    graph, seconds = _timed("load", progress, lambda: load(path, shapes or {}, supported))
    compiled = _compile(graph, name, source, str(path), {"load": seconds}, progress)
    _, seconds = _timed("write", progress, lambda: resource.write(folder, compiled.model, compiled.weights))
    return replace(compiled.summary, seconds={**compiled.summary.seconds, "write": seconds})


def compile_to_memory(graph: Graph, name: str, path: str = "") -> Compiled:
    """Compiles a graph that is loaded already, without writing it."""
    return _compile(graph, name, Source(path, "", "", COMPILER), path, {}, None)


def _compile(
    graph: Graph, name: str, source: Source, path: str, seconds: dict[str, float], progress: Progress | None
) -> Compiled:
    nodes = len(graph.nodes)
    lowered, seconds["lower"] = _timed("lower", progress, lambda: lower(graph, path))
    _, seconds["simplify"] = _timed("simplify", progress, lambda: simplify(lowered))
    _, seconds["patterns"] = _timed("patterns", progress, lambda: find_patterns(lowered))
    _, seconds["fuse"] = _timed("fuse", progress, lambda: fuse(lowered))
    laid, seconds["layout"] = _timed("layout", progress, lambda: lay_out(lowered))
    planned: Plan
    planned, seconds["memory"] = _timed("memory", progress, lambda: plan(laid))
    (model, weights), seconds["emit"] = _timed("emit", progress, lambda: emit(laid, planned, name, source))
    weight_bytes = sum(array.nbytes for array in weights.values())
    summary = Summary(name, nodes, len(model.kernels), weight_bytes, planned.arena_bytes, planned.live_bytes, seconds)
    return Compiled(model, weights, summary)


def _timed(stage: str, progress: Progress | None, work: Callable[[], T]) -> tuple[T, float]:
    if progress is not None:
        progress(stage)
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _source(path: Path, shapes: Mapping[str, Sequence[int]]) -> Source:
    options = " ".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CompileError(str(path), [Problem(error.strerror or "cannot be read")]) from None
    return Source(path.name, digest, options, COMPILER)
