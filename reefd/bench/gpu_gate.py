# SPDX-License-Identifier: Apache-2.0
"""What each piece of the preemptible form costs: `python -m reefd.bench.gpu_gate FOLDER/NETWORK-float16 ...`

A network is built again and again, each time with one piece of the gate (kernels/gpu/gate.cuh) taken out of its source,
and run undisturbed in turns with the plain form, in the same graphs. Such a program would not survive a preemption; it
only says what the piece costs. Times are microseconds from launch to retirement.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reefd import _engine, resource
from reefd.gpu import stored
from reefd.gpu.program import build_program, compile_all
from reefd.resource.load import model_spec

ROUNDS, REPEATS = 7, 40
# Without: which text of the sources becomes which.
PIECES: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "publish": [("if (block == 0 && valid) publish(place.progress, place.kernel);", "")],
    "bits set": [("if (thread_index() == 0) set_bits(place.bits + block / 32, 1u << block % 32);", "")],
    "bits read": [("finished = load_relaxed(place.bits + block / 32);", "")],
    "first look": [("if (thread_index() == 0) seen = load_relaxed(place.queue_epoch);", "")],
    "later looks": [("if (!leave && place.kernel >= shielded) seen = load_relaxed(place.queue_epoch);", "")],
    "later checks": [("if (!Preemptible || t % K::PERIOD != 0) {", "if (!Preemptible || t != 0) {")],
    "shared word": [("bool leave = words[turn] != 0;", "bool leave = false;")],
}
PIECES["everything"] = [
    *(change for changes in PIECES.values() for change in changes),
    ("window_epoch = load_relaxed(place.window_epoch);", ""),
    ("shielded = load_relaxed(place.window_epoch + 1);", ""),
    ("if (thread_index() == 0) words[turn] = !valid || (finished >> block % 32 & 1);", ""),
]


def _changed(text: str, changes: Sequence[tuple[str, str]]) -> str:
    for old, new in changes:
        text = text.replace(old, new)
    return text


def check_pieces(headers: str) -> list[str]:
    """The pieces whose text is not in the sources any more."""
    return [name for name, changes in PIECES.items() for old, _ in changes if old not in headers]


class _Variant:
    def __init__(self, device: _engine.GpuDevice, read: resource.Resource, changes: Sequence[tuple[str, str]]) -> None:
        spec = model_spec(read)
        program = stored.plan(read, device.info["target"])
        spec.set_program(
            build_program(
                program,
                lambda sources: compile_all([(_changed(text, changes), target) for text, target in sources]),
            )
        )
        storage = read.model.storage
        generator = np.random.default_rng(5)
        inputs: list[Any] = [generator.random(storage[i].shape, np.float32) for i in read.model.inputs]
        outputs: list[Any] = [np.zeros(storage[i].shape, np.float32) for i in read.model.outputs]
        self.device = device
        self.request = _engine.LocalRequest(device, device.load(spec), inputs, outputs)

    def median_us(self, preemptible: bool) -> float:
        return statistics.median(self.device.repeat(1, self.request, REPEATS, 1, preemptible)[1]) / 1e3


def measure(device: _engine.GpuDevice, folder: Path) -> dict[str, Any]:
    """Microseconds: the plain form, the preemptible one, and what it would be without each piece."""
    read = resource.read(folder)
    device.write_epoch(1, 1)
    variants = {name: _Variant(device, read, changes) for name, changes in PIECES.items()}
    times: dict[str, list[float]] = {name: [] for name in ("plain", *PIECES)}
    for _ in range(ROUNDS):
        times["plain"].append(variants["nothing"].median_us(False))
        for name, variant in variants.items():
            times[name].append(variant.median_us(True))
    found = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {
        "launches": len(stored.plan(read, device.info["target"]).steps),
        "plain_us": found["plain"],
        "preemptible_us": found["nothing"],
        "cost": round(found["nothing"] / found["plain"], 4),
        "without_us": {name: time for name, time in found.items() if name not in ("plain", "nothing")},
    }


def main() -> None:
    device = _engine.GpuDevice("cuda")
    for folder in sys.argv[1:]:
        print(json.dumps({"network": Path(folder).name, **measure(device, Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
