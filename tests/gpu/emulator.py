# SPDX-License-Identifier: Apache-2.0
"""Runs GPU kernels on the CPU: compiles their source for the host target and launches grids of fibers."""

import ctypes
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reefd.gpu.compile import compile_host_runtime, compile_source
from reefd.gpu.instance import Kernel
from reefd.gpu.source import headers_dir, kernel_source
from tests import ROOT

Array = NDArray[np.generic]
# The stand-in drivers of other tests bring a runtime of their own into this process.
_NAMESPACE = "reef_emulated"


class Place(ctypes.Structure):
    """gate.cuh's Place."""

    _fields_ = (
        ("queue_epoch", ctypes.c_void_p),
        ("window", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("progress", ctypes.c_void_p),
        ("kernel", ctypes.c_uint32),
    )


def _load(build: Callable[[], bytes], key: str) -> ctypes.CDLL:
    """Builds a shared object once for this text, and loads it."""
    folder = ROOT / "build" / "host-kernels"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(build())
        Path(file.name).rename(path)
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


class HostKernels:
    """The compiled kernels, and an execution context for their preemptible forms."""

    def __init__(self, kernels: list[Kernel]) -> None:
        self.kernels = kernels
        self.runtime = _load(
            lambda: compile_host_runtime(_NAMESPACE),
            f"{_NAMESPACE}_launch" + "".join(p.read_text() for p in sorted((headers_dir() / "host").iterdir())),
        )
        source = f"#define reef_host {_NAMESPACE}\n" + kernel_source(kernels, "host")
        self.entries = _load(lambda: compile_source(source, "host"), source)
        self.interrupt = self.runtime[f"{_NAMESPACE}_interrupt"]
        self.launch_grid = self.runtime[f"{_NAMESPACE}_launch"]
        self.interrupt.restype = ctypes.c_uint64
        self.interrupt.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self.queue_epoch, self.progress = np.array([1], np.uint32), np.array([0], np.uint32)
        self.window = np.zeros(8, np.uint32)[:5]
        units = [kernel.units for kernel in kernels]
        self.first_word = [sum(units[:i]) for i in range(len(units))]
        self.left = np.zeros(sum(units), np.uint32)

    def place(self, index: int) -> Place:
        left = self.left[self.first_word[index] :] if index < len(self.kernels) else self.left
        return Place(*(a.ctypes.data for a in (self.queue_epoch, self.window, left, self.progress)), index)

    def clear(self) -> None:
        """A new request: no block is done, the window is valid."""
        self.progress[:] = 0
        self.resume(0, 0)

    def resume(self, first: int, reached: int) -> None:
        """A valid window from kernel `first` on, or further where blocks of kernels up to `reached` left."""
        epoch = int(self.queue_epoch[0])
        words = (ctypes.c_uint64 * 8)(self.window.ctypes.data, first << 32 | epoch, reached)
        self.entries.reef_window_begin(words, ctypes.byref(Place()))

    def launch(
        self, index: int, args: list[Array | None], *, preemptible: bool = False, descending: bool = False
    ) -> None:
        kernel = self.kernels[index]
        entry = getattr(self.entries, kernel.name + ("_p" if preemptible else ""))
        pointers = (ctypes.c_void_p * 8)(*(a.ctypes.data if a is not None else None for a in args))
        place = self.place(index)
        self.launch_grid(
            entry,
            kernel.blocks,
            kernel.threads,
            kernel.cluster,
            kernel.shared,
            int(descending),
            pointers,
            ctypes.byref(place),
        )

    def end(self) -> None:
        """The end of a window that went to the last kernel."""
        count, mark = ctypes.c_uint32(6), ctypes.c_uint32()
        args = (ctypes.c_void_p * 8)(ctypes.addressof(count), ctypes.addressof(mark))
        self.entries.reef_window_end(args, ctypes.byref(self.place(len(self.kernels))))
        assert count.value == mark.value == 7

    def watch(self, countdown: int = 0) -> int:
        """Bumps the queue epoch at its load number `countdown` from now; returns the loads since the last call."""
        return int(self.interrupt(self.queue_epoch.ctypes.data, countdown))
