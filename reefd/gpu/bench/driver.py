# SPDX-License-Identifier: Apache-2.0
"""The few CUDA driver calls that tuning and measuring need, through ctypes."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref, c_char, c_int, c_size_t, c_uint, c_uint64, c_void_p
from functools import cache
from typing import Any

from numpy.typing import NDArray

from ..instance import Kernel


class DriverError(Exception):
    """A driver call failed. The message names the call and the driver's error."""


class _LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared_bytes", c_uint),
        ("stream", c_void_p),
        ("attributes", c_void_p),
        ("attribute_count", c_uint),
    )


class _LaunchAttribute(ctypes.Structure):
    _fields_ = (("id", c_int), ("pad", c_char * 4), ("value", c_int * 16))


class Place(ctypes.Structure):
    """gate.cuh's: which kernel of which request a launch is."""

    _fields_ = (
        ("queue_epoch", c_uint64),
        ("window", c_uint64),
        ("left", c_uint64),
        ("progress", c_uint64),
        ("kernel", ctypes.c_uint32),
    )


_PROGRAMMATIC_STREAM_SERIALIZATION = 6
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8


@cache
def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DriverError(f"no CUDA driver: {error}") from None


def call(name: str, *args: Any) -> None:
    """Calls the driver; raises DriverError unless it succeeds."""
    status = getattr(_library(), name)(*args)
    if status:
        text = ctypes.c_char_p()
        _library().cuGetErrorName(status, byref(text))
        raise DriverError(f"{name}: {(text.value or b'?').decode()} ({status})")


class Device:
    """The first CUDA device, in its primary context (which PyTorch in the same process uses too)."""

    def __init__(self) -> None:
        call("cuInit", 0)
        device, context = c_int(), c_void_p()
        call("cuDeviceGet", byref(device), 0)
        call("cuDevicePrimaryCtxRetain", byref(context), device)
        call("cuCtxSetCurrent", context)
        name = ctypes.create_string_buffer(128)
        call("cuDeviceGetName", name, 128, device)
        self.name = name.value.decode()
        least, greatest, stream = c_int(), c_int(), c_void_p()
        call("cuCtxGetStreamPriorityRange", byref(least), byref(greatest))
        call("cuStreamCreateWithPriority", byref(stream), 1, greatest)
        self.stream = stream
        self._functions: dict[str, c_void_p] = {}

    def allocate(self, size: int) -> int:
        pointer = c_uint64()
        call("cuMemAlloc_v2", byref(pointer), c_size_t(max(size, 16)))
        return int(pointer.value)

    def free(self, pointer: int) -> None:
        call("cuMemFree_v2", c_uint64(pointer))

    def upload(self, array: NDArray[Any], pointer: int | None = None) -> int:
        pointer = self.allocate(array.nbytes) if pointer is None else pointer
        call("cuMemcpyHtoD_v2", c_uint64(pointer), c_void_p(array.ctypes.data), c_size_t(array.nbytes))
        return pointer

    def download(self, pointer: int, array: NDArray[Any]) -> None:
        call("cuMemcpyDtoH_v2", c_void_p(array.ctypes.data), c_uint64(pointer), c_size_t(array.nbytes))

    def fill(self, pointer: int, size: int, byte: int) -> None:
        call("cuMemsetD8_v2", c_uint64(pointer), ctypes.c_ubyte(byte), c_size_t(size))
        call("cuCtxSynchronize")  # it ran on a stream that ours does not wait for

    def load(self, code: bytes, kernels: list[Kernel], *, preemptible: bool = False) -> None:
        """Makes the kernels of a cubin known by name, the preemptible forms too if they are in it."""
        module = c_void_p()
        call("cuModuleLoadData", byref(module), code)
        for kernel in kernels:
            for name in (kernel.name, kernel.name + "_p")[: 2 if preemptible else 1]:
                function = c_void_p()
                call("cuModuleGetFunction", byref(function), module, name.encode())
                call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel.shared)
                self._functions[name] = function
        if preemptible:
            for name in ("reef_window_begin", "reef_window_end"):
                function = c_void_p()
                call("cuModuleGetFunction", byref(function), module, name.encode())
                self._functions[name] = function

    def knows(self, kernel: Kernel) -> bool:
        return kernel.name in self._functions

    def launch(
        self, kernel: Kernel, pointers: list[int], *, overlap: bool = True, place: ctypes.Structure | None = None
    ) -> None:
        """Queues a kernel on the stream; with `overlap` its start overlaps the end of the one before."""
        self.launch_function(
            kernel.name + ("_p" if place is not None else ""),
            (kernel.blocks, kernel.threads, kernel.shared),
            [(c_uint64 * 8)(*pointers), *([place] if place is not None else [])],
            overlap,
        )

    def launch_function(self, name: str, extent: tuple[int, int, int], arguments: list[Any], overlap: bool) -> None:
        """Queues a function by name: blocks, threads, bytes of shared memory; ctypes arguments."""
        params = (c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        attribute = _LaunchAttribute(id=_PROGRAMMATIC_STREAM_SERIALIZATION)
        attribute.value[0] = 1
        config = _LaunchConfig(
            (c_uint * 3)(extent[0], 1, 1),
            (c_uint * 3)(extent[1], 1, 1),
            extent[2],
            self.stream,
            ctypes.addressof(attribute),
            1 if overlap else 0,
        )
        try:
            call("cuLaunchKernelEx", byref(config), self._functions[name], params, None)
        except DriverError as error:
            raise DriverError(f"{name}: {error}") from None

    def synchronize(self) -> None:
        call("cuStreamSynchronize", self.stream)

    @contextmanager
    def capture(self) -> Iterator[Callable[[], c_void_p]]:
        """Captures what is launched inside; afterwards the function given returns the executable graph."""
        call("cuStreamBeginCapture_v2", self.stream, 2)  # relaxed
        graph, executable = c_void_p(), c_void_p()
        try:
            yield lambda: executable
        finally:
            call("cuStreamEndCapture", self.stream, byref(graph))
        call("cuGraphInstantiateWithFlags", byref(executable), graph, c_uint64(0))
        call("cuGraphDestroy", graph)

    def replay(self, graph: c_void_p) -> None:
        call("cuGraphLaunch", graph, self.stream)

    def release(self, graph: c_void_p) -> None:
        call("cuGraphExecDestroy", graph)

    def time_graph(self, graph: c_void_p, repeats: int) -> float:
        """Microseconds for one replay: the least of three means over `repeats`, measured by events on the device."""
        start, end = c_void_p(), c_void_p()
        call("cuEventCreate", byref(start), 0)
        call("cuEventCreate", byref(end), 0)
        best = float("inf")
        self.replay(graph)
        for _ in range(3):
            call("cuEventRecord", start, self.stream)
            for _ in range(repeats):
                self.replay(graph)
            call("cuEventRecord", end, self.stream)
            call("cuEventSynchronize", end)
            elapsed = ctypes.c_float()
            call(
                "cuEventElapsedTime_v2" if hasattr(_library(), "cuEventElapsedTime_v2") else "cuEventElapsedTime",
                byref(elapsed),
                start,
                end,
            )
            best = min(best, elapsed.value * 1000 / repeats)
        call("cuEventDestroy_v2", start)
        call("cuEventDestroy_v2", end)
        return best
