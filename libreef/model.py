# SPDX-License-Identifier: Apache-2.0
"""What a client can know of a daemon and of its task: versions, models, tensors, statistics, completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libreef._reef import ffi, lib
from libreef.tensor import DTYPES

if TYPE_CHECKING:
    from libreef.loan import Loan


class DaemonInfo(NamedTuple):
    """Who listens on a socket."""

    abi: tuple[int, int]
    pid: int
    epoch: int
    version: str


class TensorInfo(NamedTuple):
    """One input or output of a model."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int


class ModelInfo(NamedTuple):
    """One model of the task."""

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


class Stats(NamedTuple):
    """Counters of this session since it was made; times in nanoseconds."""

    accepted: int
    completed: int
    failed: int
    late: int
    preempted: int
    queue_ns: int
    execute_ns: int
    damaged: int


class Completion(NamedTuple):
    """How a request ended. Times are CLOCK_MONOTONIC nanoseconds; `start_ns` is 0 if it never started."""

    user_data: int
    slot: int
    generation: int
    status: int
    late: bool
    replayed: bool
    preemptions: int
    accept_ns: int
    start_ns: int
    end_ns: int
    loan: Loan | None


def completion_of(raw: Any, loan: Loan | None) -> Completion:
    """From a `struct reef_completion`."""
    flags = raw.flags
    return Completion(
        raw.user_data,
        raw.slot,
        raw.generation,
        raw.status,
        bool(flags & lib.REEF_CQE_LATE),
        bool(flags & lib.REEF_CQE_REPLAYED),
        raw.preemptions,
        raw.accept_ns,
        raw.start_ns,
        raw.end_ns,
        loan,
    )


def _tensor(describe: Any, session: Any, model: int, index: int) -> TensorInfo:
    info = ffi.new("struct reef_tensor_info *")
    describe(session, model, index, info)
    shape = tuple(info.shape[axis] for axis in range(info.rank))
    return TensorInfo(ffi.string(info.name).decode(), DTYPES[info.dtype], shape, info.size)


def models_of(session: Any) -> tuple[ModelInfo, ...]:
    """All models of an open session."""
    models = []
    info = ffi.new("struct reef_model_info *")
    for model in range(lib.reef_model_count(session)):
        lib.reef_model_info(session, model, info)
        inputs = tuple(_tensor(lib.reef_input_info, session, model, index) for index in range(info.inputs))
        outputs = tuple(_tensor(lib.reef_output_info, session, model, index) for index in range(info.outputs))
        models.append(ModelInfo(ffi.string(info.name).decode(), inputs, outputs))
    return tuple(models)
