# SPDX-License-Identifier: Apache-2.0
"""Which devices this machine has, what they can do, and how quickly they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Made by the vendors' kernel drivers. Their libraries are not opened where there is no card: that takes long.
_NODES = {"cuda": "/dev/nvidiactl", "hip": "/dev/kfd"}
GPUS = tuple(_NODES)


def found_device(wanted: str) -> str:
    """The kind of device that a configuration means: `auto` is a GPU where there is one."""
    if wanted != "auto":
        return wanted
    return next((kind for kind in GPUS if Path(_NODES[kind]).exists()), "cpu")


def describe_all() -> list[dict[str, Any]]:
    """The CPU, and each kind of GPU whose kernel driver is there. A device that cannot be opened has an "error"."""
    kinds = ("cpu", *(kind for kind in GPUS if Path(_NODES[kind]).exists()))
    return [facts for kind in kinds for facts in (describe(kind), *others(kind))]


def others(kind: str) -> list[dict[str, Any]]:
    """The GPUs of a kind that the daemon does not use: it takes the first. Known where cuda-bindings or hip-python is
    installed."""
    from reefd.gpu import bindings

    found = bindings.discover(kind) if kind in GPUS else None
    note = f"not used: reefd takes the first {kind} device"
    return [{"kind": kind, **gpu._asdict(), "error": note} for gpu in found or [] if gpu.ordinal > 0]


def describe(kind: str) -> dict[str, Any]:
    """What a device is and can do: facts of its driver, and latencies measured now (None: not measured, see "note")."""
    from reefd import _engine

    try:
        device = _engine.CpuDevice() if kind == "cpu" else _engine.GpuDevice(kind)  # type: ignore[arg-type]
    except _engine.EngineError as error:
        return {"kind": kind, "error": str(error)}
    facts = {"kind": kind, **device.info, "launch_ns": None, "launch_call_ns": None, "flag_ns": None}
    facts["inputs"] = "in place" if kind == "cpu" else "staged"
    if isinstance(device, _engine.GpuDevice):
        facts |= _measured(device)
    return facts


def _measured(device: Any) -> dict[str, Any]:
    from reefd.gpu.compile import CompileError
    from reefd.gpu.probe import probe

    target = device.info["target"]
    if not target:
        return {"note": "the driver does not say for what it takes code: latencies are not measured"}
    try:
        latencies = probe(device, target)
    except CompileError as error:
        return {"note": f"latencies are not measured: {error}"}
    measured: dict[str, Any] = latencies._asdict()
    measured["inputs"] = "read in place" if measured.pop("registered") else "staged"
    return measured
