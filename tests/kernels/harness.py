# SPDX-License-Identifier: Apache-2.0
"""One CPU operator at a time, without an engine: every instruction set, order of blocks and number of threads."""

import ctypes
import functools
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reefd import _engine
from tests import ROOT

Array = NDArray[np.float32]
INSTRUCTION_SETS: list[str] = _engine.instruction_sets()


# kernels/cpu/kernel.hpp
_DTYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13,
}  # fmt: skip


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("dtype", ctypes.c_uint32),
        ("item", ctypes.c_uint32),
        ("rank", ctypes.c_uint32),
        ("shape", ctypes.c_int64 * 8),
        ("data", ctypes.c_void_p),
        ("constant", ctypes.c_uint32),
        ("written", ctypes.c_uint32),
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The harness, linked with the kernels' objects of the newest build tree."""
    every = sorted(ROOT.glob("build/*/kernels/CMakeFiles/kernels_*.dir/**/*.o"), key=lambda path: path.stat().st_mtime)
    if not every:
        pytest.skip("no object files under build/: `make setup` makes them")
    tree = ROOT / "build" / every[-1].relative_to(ROOT / "build").parts[0]
    objects = sorted(path for path in every if path.is_relative_to(tree))
    source = Path(__file__).with_name("harness.cpp")
    target = tree / "tests" / "harness.so"
    target.parent.mkdir(exist_ok=True)
    newest = max(path.stat().st_mtime for path in [source, *objects])
    if not target.exists() or target.stat().st_mtime < newest:
        made = target.with_suffix(f".{os.getpid()}")
        options = ["-std=c++20", "-O2", "-fPIC", "-shared", "-pthread", f"-I{ROOT}/kernels/cpu"]
        subprocess.run(["g++", *options, source, *objects, "-o", made], check=True)
        made.replace(target)
    loaded = ctypes.CDLL(str(target))
    loaded.harness_new.restype = ctypes.c_void_p
    loaded.harness_error.restype = ctypes.c_char_p
    loaded.harness_scratch.restype = ctypes.c_uint64
    loaded.harness_create.restype = ctypes.c_bool
    loaded.harness_run.restype = ctypes.c_bool
    return loaded


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that begins a cache line, as in a model's arena."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class RefusedError(Exception):
    """The operator's create function said no."""


class Instance:
    """A kernel instance. `tensors` are its arguments, the last `written` are outputs; `constants` are the indices of
    weights."""

    def __init__(
        self,
        op: str,
        tensors: Sequence[NDArray[Any]],
        attributes: Mapping[str, Any],
        *,
        constants: Sequence[int] = (),
        isa: str = "",
        written: int = 1,
    ) -> None:
        self._library = library()
        self._tensors = [aligned(tensor) for tensor in tensors]
        self._handle = ctypes.c_void_p(self._library.harness_new())
        for name, value in attributes.items():
            if isinstance(value, str):
                self._library.harness_text(self._handle, name.encode(), value.encode())
            else:
                numbers = [float(v) for v in (value if isinstance(value, Sequence) else [value])]
                buffer = (ctypes.c_double * len(numbers))(*numbers)
                self._library.harness_numbers(self._handle, name.encode(), buffer, len(numbers))
        for index, tensor in enumerate(self._tensors):
            shape = (ctypes.c_int64 * 8)(*tensor.shape)
            kind = (_DTYPES[tensor.dtype.name], tensor.itemsize, tensor.ndim)
            is_output = index >= len(self._tensors) - written
            described = _Tensor(*kind, shape, tensor.ctypes.data, index in constants, is_output)
            self._library.harness_tensor(self._handle, ctypes.byref(described))
        if not self._library.harness_create(self._handle, (isa or INSTRUCTION_SETS[-1]).encode(), op.encode()):
            raise RefusedError(self._library.harness_error(self._handle).decode())
        self.blocks: int = self._library.harness_blocks(self._handle)
        self.scratch: int = self._library.harness_scratch(self._handle)

    def __del__(self) -> None:
        self._library.harness_free(self._handle)

    def run(
        self, *, order: Sequence[int] | None = None, threads: int = 1, preemptible: bool = False, stale: bool = False
    ) -> Array:
        """A copy of the output, which is filled with NaN before."""
        self._tensors[-1].fill(np.nan)
        blocks = (ctypes.c_uint32 * self.blocks)(*(range(self.blocks) if order is None else order))
        finished = self._library.harness_run(self._handle, blocks, threads, preemptible, stale)
        assert finished != stale
        return self._tensors[-1].copy()

    def times(self, rounds: int, *, threads: int = 1, preemptible: bool = False) -> list[float]:
        seconds = (ctypes.c_double * rounds)()
        self._library.harness_time(self._handle, threads, preemptible, rounds, seconds)
        return list(seconds)

    def longest(self, rounds: int, evicting: int) -> tuple[list[float], list[float]]:
        """Of each block the longest time between check points, and its own, in seconds."""
        gaps, times = (ctypes.c_double * self.blocks)(), (ctypes.c_double * self.blocks)()
        self._library.harness_longest(self._handle, rounds, ctypes.c_uint64(evicting), gaps, times)
        return list(gaps), list(times)

    def block_times(self, rounds: int = 5) -> list[float]:
        seconds = (ctypes.c_double * self.blocks)()
        self._library.harness_block_times(self._handle, rounds, seconds)
        return list(seconds)


def difference(ours: Array, theirs: Array) -> float:
    """max|a-b| / max|b|"""
    assert ours.shape == theirs.shape
    assert np.isfinite(ours).all()
    assert theirs.size == 1 or np.ptp(theirs) > 0, "an output that does not vary proves nothing"
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def check_schedules(instance: Instance, seed: int = 0) -> Array:
    """The output, after showing that its bits depend neither on threads nor on order nor on the entry point."""
    expected = instance.run()
    generator = np.random.default_rng(seed)
    for threads in (1, 2, 5):
        for preemptible in (False, True):
            order = generator.permutation(instance.blocks).tolist()
            actual = instance.run(order=order, threads=threads, preemptible=preemptible)
            np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32))
    assert np.isnan(instance.run(preemptible=True, stale=True)).all()
    return expected
