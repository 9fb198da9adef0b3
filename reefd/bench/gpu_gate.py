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
from reefd.gpu.compilers import compile_all
from reefd.gpu.program import build_program, plan_program
from reefd.gpu.source import headers_dir
from reefd.resource.load import model_spec

ROUNDS, REPEATS = 7, 40
# Without: which text of the sources becomes which.
_LATER_LOOK = (
    "if (thread_index() == 0 && place.kernel >= window.word[Window::shielded]) seen = load_relaxed(place.queue_epoch);"
)
PIECES: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "first look": [("seen = load_relaxed_if(place.queue_epoch, thread_index() == 0, seen);", "")],
    "its place before the data's loads": [
        ("thread_index() == 0, seen);\n        keep_order();", "thread_index() == 0, seen);")
    ],
    "later looks": [(_LATER_LOOK, "")],
    "what a cluster tells": [
        ("if (thread_index() == 0) ((u32*)memory)[16] = leaving;", "{}"),
        ("told = cluster_load(memory + 64, thread_index() % 32).word[0];", "{}"),
    ],
    "the window's progress": [("    if (place.progress) {", "    if (false) {")],
}
# The preemptible form decides nothing and has no barrier of its own.
PIECES["the gate"] = [
    (
        "template <> struct Gate<true> {",
        "template <> struct Gate<true> : Gate<false> {\n"
        "    REEF_MEMBER Gate(const Place& place, u32 block) : Gate<false>(place, block) {}\n};\nstruct Unused {",
    ),
    ("REEF_MEMBER Gate(const Place& where, u32 number)", "REEF_MEMBER Unused(const Place& where, u32 number)"),
    *PIECES["what a cluster tells"],
]


def _changed(text: str, changes: Sequence[tuple[str, str]]) -> str:
    for old, new in changes:
        text = text.replace(old, new)
    return text


def missing_pieces() -> list[str]:
    """The pieces whose text is not in the sources any more."""
    headers = "".join(path.read_text() for path in headers_dir().glob("*.cuh"))
    return [name for name, changes in PIECES.items() for old, _ in changes if old not in headers]


class _Variant:
    def __init__(self, device: _engine.GpuDevice, read: resource.Resource, changes: Sequence[tuple[str, str]]) -> None:
        spec = model_spec(read)
        program = plan_program(read.model, read.weights, device.info["target"], read.model.precision)
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
        self.device, self.launches = device, len(program.steps)
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
        "launches": variants["nothing"].launches,
        "plain_us": found["plain"],
        "preemptible_us": found["nothing"],
        "cost": round(found["nothing"] / found["plain"], 4),
        "without_us": {name: time for name, time in found.items() if name not in ("plain", "nothing")},
    }


def main() -> None:
    if missing := missing_pieces():
        raise SystemExit(f"gpu_gate: the sources have changed, correct PIECES: {', '.join(missing)}")
    device = _engine.GpuDevice("cuda")
    for folder in sys.argv[1:]:
        print(json.dumps({"network": Path(folder).name, **measure(device, Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
