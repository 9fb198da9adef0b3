# SPDX-License-Identifier: Apache-2.0
"""The machine as a profile names it: two that have the same name run the same kernels equally fast."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reefd import __version__

if TYPE_CHECKING:
    from reefd.resource.profile import Machine

_CPUINFO = Path("/proc/cpuinfo")
# x86 has a name and numbers for what the name leaves open; Arm numbers only.
_KEYS = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "CPU variant")


def here(device: Mapping[str, Any]) -> Machine:
    """This machine with a device, which is described as Engine.device and LocalDevice.info do. A GPU has its own name,
    and its kernels that of what they were compiled for, where the driver tells."""
    from reefd.resource.profile import Machine

    name, made_for = str(device["name"]), str(device.get("target") or device["detail"]).partition(",")[0]
    kernels = f"{made_for}, reefd {__version__}"
    return Machine(processor() if name == "cpu" else name, kernels, int(device["compute_units"]))


def processor() -> str:
    """The first processor of /proc/cpuinfo."""
    try:
        text = _CPUINFO.read_text(errors="replace")
    except OSError:
        text = ""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if not line.strip() and found:
            break
        if key.strip() in _KEYS:
            found[key.strip()] = value.strip()
    name = found.pop("model name", platform.machine())
    numbers = ", ".join(f"{key} {value}" for key, value in found.items())
    return f"{name} ({numbers})" if numbers else name
