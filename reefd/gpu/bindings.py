# SPDX-License-Identifier: Apache-2.0
"""The vendors' Python packages, cuda-bindings and hip-python, where they are installed: which GPUs there are, their
memory, and compilation at run time. The engine needs none of this: it opens the drivers itself.

What a package cannot do here (it is missing, or its library is) is None; callers then take another way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Found(NamedTuple):
    """A GPU that the vendor's driver lists. Memory in bytes."""

    ordinal: int
    name: str
    compute_units: int
    memory_total: int
    memory_free: int


class RefusedError(Exception):
    """A run-time compiler refused a source. The message holds its log."""


def discover(kind: str) -> list[Found] | None:
    """Every GPU of a vendor (`cuda`, `hip`). None: no package, or no driver that it can open."""
    try:
        return _cuda_devices() if kind == "cuda" else _hip_devices()
    except (ImportError, AttributeError, RuntimeError, OSError):
        return None


def _module(package: str, name: str) -> Any:
    """`from package import name`. The packages are neither needed nor typed; some of hip-python's modules are no
    modules of their own. ImportError."""
    return getattr(__import__(package, fromlist=[name]), name)


def _checked(result: tuple[Any, ...]) -> Any:
    """What a call of either package returned, without its status. RuntimeError: it failed."""
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(str(status))
    return values[0] if len(values) == 1 else values


def _text(log: bytes | bytearray) -> str:
    return bytes(log).rstrip(b"\0").decode()


def _cuda_devices() -> list[Found]:
    driver = _module("cuda.bindings", "driver")

    _checked(driver.cuInit(0))
    found = []
    for ordinal in range(_checked(driver.cuDeviceGetCount())):
        device = _checked(driver.cuDeviceGet(ordinal))
        units = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
        name = _checked(driver.cuDeviceGetName(256, device)).split(b"\0")[0].decode()
        _checked(driver.cuCtxSetCurrent(_checked(driver.cuDevicePrimaryCtxRetain(device))))
        try:
            free, total = _checked(driver.cuMemGetInfo())
        finally:
            driver.cuDevicePrimaryCtxRelease(device)
        found.append(Found(ordinal, name, _checked(driver.cuDeviceGetAttribute(units, device)), total, free))
    return found


def _hip_devices() -> list[Found]:
    hip = _module("hip", "hip")

    found = []
    for ordinal in range(_checked(hip.hipGetDeviceCount())):
        _checked(hip.hipSetDevice(ordinal))
        free, total = _checked(hip.hipMemGetInfo())
        units = hip.hipDeviceAttribute_t.hipDeviceAttributeMultiprocessorCount
        device = _checked(hip.hipDeviceGet(ordinal))
        count = _checked(hip.hipDeviceGetAttribute(units, ordinal))
        found.append(Found(ordinal, _hip_name(hip, device), count, total, free))
    return found


def _hip_name(hip: Any, device: Any) -> str:
    """hip-python for ROCm 7 and later returns what earlier ones write into a buffer."""
    try:
        name = _checked(hip.hipDeviceGetName(256, device))
    except TypeError:
        buffer = ctypes.create_string_buffer(256)
        _checked(hip.hipDeviceGetName(buffer, 256, device))
        return buffer.value.decode()
    return name if isinstance(name, str) else bytes(name).split(b"\0")[0].decode()


def nvrtc(source: str, options: Sequence[str]) -> bytes | None:
    """A cubin by cuda-bindings. RefusedError: NVRTC did not take the source."""
    try:
        api = _module("cuda.bindings", "nvrtc")

        program = _checked(api.nvrtcCreateProgram(source.encode(), b"reef.cu", 0, [], []))
    except (ImportError, AttributeError, RuntimeError, OSError):
        return None
    try:
        (status,) = api.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if int(status) != 0:
            log = bytes(_checked(api.nvrtcGetProgramLogSize(program)))
            _checked(api.nvrtcGetProgramLog(program, log))
            raise RefusedError(f"NVRTC: {status}\n{_text(log)}")
        code = bytes(_checked(api.nvrtcGetCUBINSize(program)))
        _checked(api.nvrtcGetCUBIN(program, code))
        return code
    finally:
        api.nvrtcDestroyProgram(program)


def hiprtc(source: str, options: Sequence[str]) -> bytes | None:
    """A code object by hip-python, or by the hiprtc that Debian's libamdhip64.so.5 exports. RefusedError as above.

    Only for processors that the library knows: Debian's 5.2 ends the process where it is asked for a newer one.
    """
    for compile_source in (_hiprtc_package, _hiprtc_library):
        if (code := compile_source(source, options)) is not None:
            return code
    return None


def _hiprtc_package(source: str, options: Sequence[str]) -> bytes | None:
    try:
        api = _module("hip", "hiprtc")

        program = _checked(api.hiprtcCreateProgram(source.encode(), b"reef.hip", 0, None, None))
    except (ImportError, AttributeError, RuntimeError, OSError):
        return None
    try:
        (status,) = api.hiprtcCompileProgram(program, len(options), [option.encode() for option in options])
        if int(status) != 0:
            log = bytearray(_checked(api.hiprtcGetProgramLogSize(program)))
            _checked(api.hiprtcGetProgramLog(program, log))
            raise RefusedError(f"hiprtc: {status}\n{_text(log)}")
        code = bytearray(_checked(api.hiprtcGetCodeSize(program)))
        _checked(api.hiprtcGetCode(program, code))
        return bytes(code)
    finally:
        api.hiprtcDestroyProgram(program.createRef())


def _hiprtc_library(source: str, options: Sequence[str]) -> bytes | None:
    try:
        library = ctypes.CDLL("libamdhip64.so.5")
        create = library.hiprtcCreateProgram
    except (OSError, AttributeError):
        return None
    program = ctypes.c_void_p()
    if create(ctypes.byref(program), source.encode(), b"reef.hip", 0, None, None):
        return None

    def text(size_of: Callable[..., int], get: Callable[..., int]) -> bytes:
        size = ctypes.c_size_t()
        size_of(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        get(program, buffer)
        return buffer.raw

    try:
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if status := library.hiprtcCompileProgram(program, len(options), array):
            log = text(library.hiprtcGetProgramLogSize, library.hiprtcGetProgramLog)
            raise RefusedError(f"hiprtc: status {status}\n{_text(log)}")
        return text(library.hiprtcGetCodeSize, library.hiprtcGetCode)
    finally:
        library.hiprtcDestroyProgram(ctypes.byref(program))
