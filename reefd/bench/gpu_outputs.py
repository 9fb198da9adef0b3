# SPDX-License-Identifier: Apache-2.0
"""What large best-effort outputs cost real-time requests: `python -m reefd.bench.gpu_outputs [cuda|hip] [ROUNDS]`

A best-effort request with BERT's outputs (of one text, and of 32) has its kernels done; while they go to the host, a
small real-time request is launched and its latency taken. The outputs go by a kernel, as those up to 16 KiB do, or in
pieces by the copy engine, of which none begins once the real-time request is there. A JSON object a line, microseconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reefd import _engine, resource
from reefd.bench.gpu import spread
from reefd.gpu.compilers import compile_all
from reefd.gpu.probe import spin_model
from reefd.gpu.program import Compile, area_bytes, build_program, output_step, plan_program
from reefd.resource.load import model_spec
from reefd.resource.schema import Kernel, ModelFile, Storage

SIZES = {"one text": 98_304, "32 texts": 32 * 98_304}  # floats: 128 words, 768 each
_REAL_TIME, _BEST_EFFORT = 0, 1
Times = dict[str, float]


def sending(target: str, elements: int, compile_sources: Compile, *, by_kernel: bool) -> _engine.ModelSpec:
    """One number in, `elements` out."""
    storage = [
        Storage("in", 1, "float32", "input", [1]),
        Storage("out", elements, "float32", "output", [elements]),
        Storage("w", elements, "float32", "weight", [elements]),
    ]
    schedule = [Kernel("k", [0, 2, 1], "binary", ["read", "read", "write"], {"function": "add"})]
    model = ModelFile("sending", storage, schedule, [0], [1], 0, version=1)
    weights: dict[str, Any] = {"w": np.random.default_rng(1).random(elements, np.float32)}
    spec = model_spec(resource.Resource(Path(), model, weights, "", {}))
    program = plan_program(model, weights, target)
    if by_kernel:
        program = program._replace(steps=[*program.steps, output_step(area_bytes(model, model.outputs))])
    spec.set_program(build_program(program, compile_sources))
    return spec


class Sender:
    """The best-effort request."""

    def __init__(self, device: _engine.LocalDevice, spec: _engine.ModelSpec, elements: int, *, by_kernel: bool) -> None:
        self.device, self.by_kernel = device, by_kernel
        self.model = device.load(spec)
        self.inputs = [np.ones(1, np.float32)]
        self.outputs = [np.zeros(elements, np.float32)]
        self.request = _engine.LocalRequest(device, self.model, self.inputs, self.outputs)
        self.epoch, self.mark = 1000, 0
        device.write_epoch(_BEST_EFFORT, self.epoch)

    def launch(self) -> None:
        done = self.request.kernels_done
        self.mark = self.device.launch(_BEST_EFFORT, self.request, done, len(self.model.kernels), self.epoch, True)

    def begin(self) -> None:
        """Up to where its outputs are on their way."""
        self.request.clear()
        self.launch()
        if not self.by_kernel:
            self.device.wait(_BEST_EFFORT, self.mark)
            self.request.deliver()

    def go_on(self) -> bool:
        """True: they are there."""
        if not self.by_kernel:
            self.device.poll()
            return self.request.deliver()
        if self.device.retired(_BEST_EFFORT) != self.mark:
            return False
        if self.request.kernels_done == len(self.model.kernels):
            return True
        self.launch()
        return False

    def leave(self) -> None:
        if self.by_kernel:
            self.epoch += 1
            self.device.write_epoch(_BEST_EFFORT, self.epoch)
        else:
            self.device.poll(hold=True)


def latencies(device: _engine.LocalDevice, sender: Sender, real_time: _engine.LocalRequest, rounds: int) -> Times:
    """Of real-time requests that come at a random moment of the outputs' way; and how long that is, undisturbed."""
    ways = []
    for _ in range(5):
        sender.begin()
        began = time.perf_counter_ns()
        while not sender.go_on():
            pass
        ways.append(time.perf_counter_ns() - began)
    way = sorted(ways)[len(ways) // 2]
    rng = np.random.default_rng(2)
    taken = []
    for _ in range(rounds):
        sender.begin()
        end = time.perf_counter_ns() + int(rng.uniform(0, way))
        there = False
        while time.perf_counter_ns() < end and not there:
            there = sender.go_on()
        sender.leave()
        taken += device.repeat(_REAL_TIME, real_time, 1)[1]
        while not there:
            there = sender.go_on()
    return {"outputs_us": round(way / 1e3, 1), **spread(taken), "most_us": round(max(taken) / 1e3, 1)}


def main(
    device: _engine.LocalDevice, target: str, rounds: int, compile_sources: Compile = compile_all
) -> list[dict[str, Any]]:
    small = device.load(spin_model(target, 1, compile_sources, turns=1))
    inputs, outputs = [np.ones(16, np.float32)], [np.zeros(16, np.float32)]
    real_time = _engine.LocalRequest(device, small, inputs, outputs)
    device.repeat(_REAL_TIME, real_time, rounds)  # warm
    alone = device.repeat(_REAL_TIME, real_time, rounds)[1]
    found: list[dict[str, Any]] = [{"beside": "nothing", **spread(alone), "most_us": round(max(alone) / 1e3, 1)}]
    for words, elements in SIZES.items():
        for by_kernel in (True, False):
            spec = sending(target, elements, compile_sources, by_kernel=by_kernel)
            sender = Sender(device, spec, elements, by_kernel=by_kernel)
            row = latencies(device, sender, real_time, rounds)
            how = "a kernel" if by_kernel else "pieces"
            found.append({"beside": f"outputs of {words} by {how}", "bytes": 4 * elements, **row})
            sender.request.copy_out()
            if not np.array_equal(sender.outputs[0], 1 + np.random.default_rng(1).random(elements, np.float32)):
                raise SystemExit(f"gpu_outputs: wrong outputs by {how}")
    return found


if __name__ == "__main__":
    kind: Literal["cuda", "hip"] = "hip" if "hip" in sys.argv[1:2] else "cuda"
    opened = _engine.GpuDevice(kind)
    for line in main(opened, opened.info["target"], int(sys.argv[2]) if len(sys.argv) > 2 else 1000):
        print(json.dumps(line), flush=True)
