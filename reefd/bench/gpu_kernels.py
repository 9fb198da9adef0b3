# SPDX-License-Identifier: Apache-2.0
"""Each kernel of a network alone, plain and preemptible: `python -m reefd.bench.gpu_kernels FOLDER/NETWORK-float16 ...`

A chain of launches of one kernel, overlapped as in a network, is captured as a graph in each form, and both are
replayed by turns, undisturbed. Everything it reads is warm and its code is in the caches, so the times are less than in
a network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reefd import resource
from reefd.gpu import stored
from reefd.gpu.bench.driver import Device, Place
from reefd.gpu.program import Step
from reefd.resource.read import read_code

TARGET = "sm_90a"
CHAIN, TURNS = 100, 5
_PAGE = 4096


class _Memory:
    """Zeros for every argument, and a window of epoch 1 that begins at kernel 0."""

    def __init__(self, device: Device, steps: list[Step]) -> None:
        pages = [sum(-(-size // _PAGE) + 1 for _, _, _, size in step.arguments) for step in steps]
        size, units = max(pages) * _PAGE, max(step.kernel.units for step in steps)
        self.start, words, left = device.allocate(size), device.allocate(2 * 128), device.allocate(4 * units)
        device.fill(self.start, size, 0)
        device.fill(left, 4 * units, 0)
        device.upload(np.array([1], np.uint32), words)
        device.upload(np.array([1, 0, 0, 0, 0xFFFFFFFF], np.uint32), words + 128)
        self.place = Place(words, words + 128, left, 0, 1)

    def pointers(self, step: Step) -> list[int]:
        found, at = [], self.start
        for memory, _, _, size in step.arguments:
            found.append(0 if memory == "none" else at)
            at += (-(-size // _PAGE) + 1) * _PAGE
        return found + [0] * (8 - len(found))


def _times(device: Device, memory: _Memory, step: Step) -> tuple[float, float]:
    """Microseconds of one launch in a chain: plain, preemptible."""
    graphs = []
    for place in (None, memory.place):
        with device.capture() as graph:
            for number in range(CHAIN):
                device.launch(step.kernel, memory.pointers(step), overlap=number > 0, place=place)
        graphs.append(graph())
    least = [float("inf")] * 2
    for _ in range(TURNS):
        for form, executable in enumerate(graphs):
            least[form] = min(least[form], device.time_graph(executable, 2) / CHAIN)
    for executable in graphs:
        device.release(executable)
    return least[0], least[1]


def kernel_rows(device: Device, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each kernel of a network; not of the one that writes outputs to where a request says."""
    read = resource.read(folder)
    code = read_code(read, TARGET)
    if code is None:
        raise SystemExit(f"gpu_kernels: {folder} has no code for {TARGET}")
    steps = [step for step in stored.plan(read, code.file).steps if step.operation]
    kernels = {step.kernel.name: step.kernel for step in steps}
    for names, content in code.objects.items():
        there = [kernels[name] for name in names.split() if name in kernels]
        device.load(content.tobytes(), there, preemptible=True)
    memory = _Memory(device, steps)
    for name in kernels:
        same = [step for step in steps if step.kernel.name == name]
        plain, preemptible = _times(device, memory, same[0])
        yield {
            "launch": same[0].name,
            "launches": len(same),
            "blocks": same[0].kernel.blocks,
            "cluster": same[0].kernel.cluster,
            "plain_us": round(plain, 3),
            "preemptible_us": round(preemptible, 3),
            "cost": round(preemptible / plain, 3),
        }


def measure(device: Device, folder: Path) -> dict[str, Any]:
    """Sums over the network, and the ten kernels that cost it most."""
    rows = list(kernel_rows(device, folder))

    def total(form: str) -> float:
        return round(float(sum(row["launches"] * row[form] for row in rows)), 1)

    def lost(row: dict[str, Any]) -> float:
        return float(row["launches"] * (row["preemptible_us"] - row["plain_us"]))

    return {
        "kernels": len(rows),
        "plain_us": total("plain_us"),
        "preemptible_us": total("preemptible_us"),
        "above_1.06": sum(row["cost"] > 1.06 for row in rows),
        "worst_cost": max(row["cost"] for row in rows),
        "most_lost": sorted(rows, key=lost, reverse=True)[:10],
    }


def main() -> None:
    device = Device()
    for folder in sys.argv[1:]:
        print(json.dumps({"network": Path(folder).name, **measure(device, Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
