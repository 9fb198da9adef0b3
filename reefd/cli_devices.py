# SPDX-License-Identifier: Apache-2.0
"""reefctl devices: what this machine has, and what each device can do."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import Parameter


def devices(
    *, json: Annotated[bool, Parameter(name="--json", negative=(), help="One JSON object instead of a table.")] = False
) -> int:
    """List the CPU and the GPUs that reefd can use, with what was measured on them just now."""
    from reefd.devices import describe_all

    found = describe_all()
    if json:
        from json import dumps

        print(dumps({"devices": found}))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for heading in ("device", "name", "units", "code", "memory", "reset", "masks", "inputs", "launch", "flag"):
        table.add_column(heading, justify="right" if heading in ("units", "memory", "launch", "flag") else "left")
    for device in found:
        if "error" in device:
            print(f"{device['kind']}: {device['error']}", file=sys.stderr)
            continue
        table.add_row(
            device["kind"], device["name"], str(device["compute_units"]), device["target"] or "-", _memory(device),
            "yes" if device["can_reset"] else "no", str(device["split_granule"] or "no"), device["inputs"],
            _time(device["launch_ns"]), _time(device["flag_ns"]),
        )  # fmt: skip
    Console().print(table)
    for device in found:
        if note := device.get("note"):
            print(f"{device['kind']}: {note}", file=sys.stderr)
    return 0


def _memory(device: dict[str, Any]) -> str:
    return f"{device['memory_free'] >> 20} of {device['memory_total'] >> 20} MiB" if device["memory_total"] else "-"


def _time(nanoseconds: int | None) -> str:
    return f"{nanoseconds / 1e3:.1f} us" if nanoseconds else "-"
