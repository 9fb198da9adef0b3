# SPDX-License-Identifier: Apache-2.0
"""Whole networks on a CPU device that this process drives window by window: interrupted anywhere, and compared bit for
bit with an undisturbed run on one worker."""

import contextlib
import functools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reefd import _engine
from reefd.compiler import compile_to_memory
from reefd.compiler.load import load
from reefd.compiler.operators import supported
from reefd.resource import Resource, restorable
from reefd.resource.load import model_spec
from reefd.zoo import NETWORKS, build
from tests import ROOT

PERCEPTION = ["person_detector", "face_detector", "face_mesh", "iris"]
ZOO = list(NETWORKS)


class Network:
    """A compiled network with seeded weights and inputs, none of them zero, and its undisturbed answer."""

    def __init__(self, name: str, work: Path) -> None:
        path = ROOT / f"resource/onnx/{name}.onnx"
        if name in NETWORKS:
            import onnx

            path = work / f"{name}.onnx"
            onnx.save(build(name), path)
        compiled = compile_to_memory(load(path, {}, supported), name)
        if name in NETWORKS:
            path.unlink()  # up to 575 MB
        storage = compiled.model.storage
        generator = np.random.default_rng(5)
        self.name = name
        self.inputs = [_values(generator, storage[i].stype, storage[i].shape) for i in compiled.model.inputs]
        self.results = [(storage[i].stype, storage[i].shape) for i in compiled.model.outputs]
        self.kernels = len(compiled.model.kernels)
        self.units = sum(instance.verdict == "unit" for instance in restorable.instances(compiled.model))
        self.spec = model_spec(Resource(Path(), compiled.model, compiled.weights, ""))
        one = _engine.CpuDevice(workers=1)
        request = Request(one, one.load(self.spec), self)
        self.expected = request.undisturbed()

    def blank(self) -> list[np.ndarray]:
        return [np.full(shape, -77, dtype) for dtype, shape in self.results]


def _values(generator: np.random.Generator, dtype: str, shape: list[int]) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return generator.uniform(0.1, 1, shape).astype(dtype)
    return generator.integers(1, 100, shape).astype(dtype)


@functools.lru_cache(maxsize=6)  # the small ones come first; vgg and bert need gigabytes
def network(name: str, work: Path) -> Network:
    return Network(name, work)


class Request:
    """One request of a network on a queue of a device, preempted and resumed by the caller."""

    def __init__(self, device: _engine.LocalDevice, model: _engine.Model, network: Network, queue: int = 1) -> None:
        self.device, self.network, self.queue = device, network, queue
        self.outputs = network.blank()
        self.request = _engine.LocalRequest(device, model, network.inputs, self.outputs)
        self.epoch = 0
        self.mark = device.retired(queue)

    @property
    def done(self) -> int:
        return self.request.kernels_done

    @property
    def over(self) -> bool:
        return self.done == self.network.kernels

    def launch(self, last: int | None = None, preemptible: bool = True) -> None:
        """From the first unfinished kernel. Under a new epoch, so nothing launched before runs again."""
        if preemptible:
            self.preempt()
        last = self.network.kernels if last is None else last
        self.mark = self.device.launch(self.queue, self.request, self.done, last, self.epoch, preemptible)

    def preempt(self) -> None:
        self.epoch += 1
        self.device.write_epoch(self.queue, self.epoch)

    def wait(self) -> None:
        assert self.device.wait(self.queue, self.mark), f"{self.network.name}: a window never retired"

    def finish(self, preemptible: bool = True) -> None:
        while not self.over:
            self.launch(preemptible=preemptible)
            self.wait()

    def bits(self) -> list[bytes]:
        self.request.copy_out()
        return [output.tobytes() for output in self.outputs]

    def check(self) -> None:
        assert self.bits() == self.network.expected, f"{self.network.name}: other bits than an undisturbed run"

    def undisturbed(self) -> list[bytes]:
        self.finish(preemptible=False)
        bits = self.bits()
        for output in self.outputs:
            assert np.isfinite(output.astype(np.float64)).all() and (output.size == 1 or np.ptp(output) > 0)
        return bits


def pause(nanoseconds: float) -> None:
    until = time.perf_counter_ns() + nanoseconds
    while time.perf_counter_ns() < until:
        pass


@contextlib.contextmanager
def undisplaced() -> Iterator[None]:
    """Where the machine allows it, this thread keeps its processor for the moment: the workers that it wakes would take
    it, and finish a small kernel, or all of them, before an interruption that was meant to come at once."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


class Bench:
    """A network loaded on a device with some number of workers."""

    def __init__(self, network: Network, workers: int) -> None:
        self.network = network
        self.device = _engine.CpuDevice(workers=workers)
        self.model = self.device.load(network.spec)
        self.random = random.Random(workers)
        self.preempted = 0

    def request(self) -> Request:
        return Request(self.device, self.model, self.network)

    def interrupt(self, request: Request, within_ns: float) -> None:
        """Launches what is left and preempts it at a random moment."""
        with undisplaced() if within_ns < 100_000 else contextlib.nullcontext():
            request.launch()
            pause(self.random.uniform(0, within_ns))
            request.preempt()
        request.wait()
        self.preempted += not request.over

    def every_kernel(self) -> int:
        """Until each kernel index was the one that a restart began at, after it was begun. Returns the runs it took."""
        missing, runs, within = set(range(self.network.kernels)), 0, 60_000.0
        while missing:
            request = self.request()
            for kernel in sorted(missing):
                if request.done < kernel:
                    request.launch(last=kernel)
                    request.wait()
                if request.done == kernel:
                    if runs > 3:  # a kernel of a microsecond is over by then, unless its workers have to wake up first
                        time.sleep(0.0002)
                    self.interrupt(request, within)
                    if request.done == kernel:
                        missing.discard(kernel)
            request.finish()
            request.check()
            runs, within = runs + 1, within * 0.7
            assert runs < 1000, f"{self.network.name}: kernels {sorted(missing)} never stopped"
        return runs

    def random_instants(self, wanted: int, each: int = 20) -> int:
        """Until so many interruptions, at instants spread over the whole run, came before the end. Returns the runs."""
        began = time.perf_counter_ns()
        self.request().finish()
        span = time.perf_counter_ns() - began
        before, runs = self.preempted, 0
        while self.preempted - before < wanted:
            request = self.request()
            for _ in range(each):
                if not request.over:
                    self.interrupt(request, 2 * span / each)
            request.finish()
            request.check()
            runs += 1
            assert runs < 20 * wanted
        return runs

    def while_resuming(self, places: int = 8, times: int = 25) -> None:
        """Preempted again and again before it has well begun to resume."""
        request = self.request()
        for place in range(places):
            last = self.network.kernels * (place + 1) // places
            if request.done < last:
                request.launch(last=last)
                pause(self.random.uniform(0, 100_000))
                request.preempt()
            for _ in range(times):
                self.interrupt(request, 3_000)
        request.finish()
        request.check()

    def cancelled(self, times: int = 10) -> None:
        """Preempted and given up, its context taken over by the next request as soon as its window has retired."""
        request = self.request()
        for _ in range(times):
            request.launch()
            pause(self.random.uniform(0, 300_000))
            request.preempt()
            if self.random.random() < 0.5:
                request.preempt()  # cancelled while it is being preempted
            request.wait()
            request.request.clear()
        request.finish()
        request.check()


def storm(networks: list[Network], workers: int, seconds: float) -> dict[str, int]:
    """The first network as real-time requests, one after the other, over two best-effort ones side by side that it
    preempts (mostly) or overtakes. Every answer of each is compared. Returns how many there were."""
    device = _engine.CpuDevice(workers=workers)
    rng = random.Random(workers)
    urgent, *others = networks
    urgent_model = device.load(urgent.spec)
    best_effort = [Request(device, device.load(one.spec), one, queue) for queue, one in enumerate(others, 1)]
    counts = dict.fromkeys(["real_time", "best_effort", "preempted"], 0)
    until = time.monotonic() + seconds
    while time.monotonic() < until or not counts["best_effort"]:
        for request in best_effort:
            if request.device.retired(request.queue) != request.mark:
                continue
            if request.over:
                request.check()
                counts["best_effort"] += 1
                request.request.clear()
            request.launch()
        pause(rng.uniform(0, 400_000))
        preempts = rng.random() < 0.8
        for request in best_effort if preempts else []:
            request.preempt()
        real_time = Request(device, urgent_model, urgent, queue=0)
        real_time.launch(preemptible=False)
        real_time.wait()
        real_time.check()
        counts["real_time"] += 1
        if preempts:
            for request in best_effort:
                request.wait()
                counts["preempted"] += not request.over
    for request in best_effort:
        request.wait()
        request.finish()
        request.check()
    return counts
