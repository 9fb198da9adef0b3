# SPDX-License-Identifier: Apache-2.0
"""What preemptible kernels cost undisturbed, and that a preempted network goes on to the same bits."""

import ctypes
import random
import statistics
import time
from typing import Any

import numpy as np

from .driver import Device, Place, call
from .network import Launch, Network
from .tune import Compiler


class _Record:
    """An execution context in device memory, its epoch word and its host-visible progress word."""

    def __init__(self, device: Device, launches: list[Launch]) -> None:
        self.device, self.launches = device, launches
        self.first_word = np.cumsum([0, *(kernel.units for kernel, _ in launches)])
        self.record_bytes = int(self.first_word[-1]) * 4
        self.epoch, self.record, self.window = (
            device.allocate(256),
            device.allocate(self.record_bytes),
            device.allocate(256),
        )
        device.fill(self.record, self.record_bytes, 0)
        self.count = device.upload(np.zeros(1, np.uint32))
        host, mapped = ctypes.c_void_p(), ctypes.c_uint64()
        call("cuMemHostAlloc", ctypes.byref(host), ctypes.c_size_t(4096), 2)
        call("cuMemHostGetDevicePointer_v2", ctypes.byref(mapped), host, 0)
        self.progress = ctypes.cast(host, ctypes.POINTER(ctypes.c_uint32))
        self.progress_device = mapped.value
        signal = ctypes.c_void_p()
        call("cuStreamCreateWithPriority", ctypes.byref(signal), 1, -5)
        self.signal = signal
        self.value = 1
        self.words, self.reached = (0, 1, 0), 0
        device.upload(np.array([1], np.uint32), self.epoch)
        device.upload(np.array([1, 0, 0, 0, 0xFFFFFFFF], np.uint32), self.window)

    def place(self, index: int) -> Place:
        return Place(
            self.epoch, self.window, self.record + int(self.first_word[index]) * 4, self.progress_device, index
        )

    def clear(self) -> None:
        """A new request, from the first kernel."""
        self.progress[0] = self.reached = 0

    def launch(self, graph: Any) -> None:
        """The network, from where it was stopped."""
        words = (self.progress[0], self.value, self.reached)
        if words != self.words:
            packed = (ctypes.c_uint64 * 8)(self.window, words[0] << 32 | words[1], words[2])
            self.device.launch_function("reef_window_begin", (1, 1, 0), [packed, Place()], False)
            self.words = words
        self.reached = len(self.launches)
        self.device.replay(graph)

    def preempt(self) -> None:
        self.value += 1
        call("cuStreamWriteValue32_v2", self.signal, ctypes.c_uint64(self.epoch), self.value, 0)


def measure_preemptible(
    device: Device, compiler: Compiler, network: Network, launches: list[Launch], rounds_of: int = 60
) -> dict[str, Any]:
    compiler.load([k for k, _ in launches], ("plain", "preemptible"))
    record = _Record(device, launches)

    def captured(preemptible: bool, overlap: bool) -> Any:
        with device.capture() as graph:
            for index, (kernel, pointers) in enumerate(launches):
                place = record.place(index) if preemptible else None
                device.launch(kernel, pointers, overlap=overlap and index > 0, place=place)
            words = [(ctypes.c_uint64 * 8)(record.count, record.progress_device + 64), record.place(len(launches))]
            device.launch_function(
                "reef_window_end", (1, 1, 0), words, overlap
            )  # a plain window has an end to report too
        return graph()

    plain, serial, preemptible, preemptible_serial = (
        captured(False, True),
        captured(False, False),
        captured(True, True),
        captured(True, False),
    )

    def undisturbed(graph: Any) -> float:
        times = []
        for _ in range(30):
            record.clear()
            times.append(device_time(device, graph))
        return statistics.median(times)

    rounds = [[undisturbed(graph) for graph in (plain, preemptible, serial, preemptible_serial)] for _ in range(5)]
    plain_us, preemptible_us, serial_us, preemptible_serial_us = (
        statistics.median(r[i] for r in rounds) for i in range(4)
    )

    network.poison()
    device.replay(plain)
    device.synchronize()
    expected = _digest(network)
    rng = random.Random(1)
    drains: list[float] = []
    exact, abandoned = True, 0
    for _ in range(rounds_of):
        record.clear()
        network.poison()
        device.synchronize()
        for attempt in range(200):
            record.launch(preemptible)  # kernels that are done fall through, as in a resumed window
            if attempt < 4:
                end = time.perf_counter() + rng.random() * plain_us * 1e-6
                while time.perf_counter() < end:
                    pass
                start = time.perf_counter()
                record.preempt()
                device.synchronize()
                drains.append((time.perf_counter() - start) * 1e6)
                abandoned += record.progress[0] < len(launches)
            device.synchronize()
            if record.progress[0] == len(launches):
                break
        exact = exact and _digest(network) == expected
    drains = sorted(drains) or [0.0]
    return {
        "plain_us": plain_us,
        "plain_no_overlap_us": serial_us,
        "preemptible_no_overlap_us": preemptible_serial_us,
        "preemptible_us": preemptible_us,
        "cost": preemptible_us / plain_us,
        "preemptions": len(drains),
        "abandoned": abandoned,
        "exact": exact,
        "drain_p50_us": statistics.median(drains),
        "drain_p99_us": drains[int(len(drains) * 0.99)],
        "summary": (
            f"plain {plain_us:.1f}, undisturbed {preemptible_us:.1f} us (x{preemptible_us / plain_us:.3f}), "
            f"no overlap {serial_us:.1f}, {preemptible_serial_us:.1f}; {len(drains)} preemptions "
            f"({abandoned} before the end), epoch -> drained {statistics.median(drains):.1f} "
            f"({drains[int(len(drains) * 0.99)]:.1f}) us, {'bit-exact' if exact else 'OUTPUTS DIFFER'}"
        ),
    }


def device_time(device: Device, graph: Any) -> float:
    start = time.perf_counter()
    device.replay(graph)
    device.synchronize()
    return (time.perf_counter() - start) * 1e6


def _digest(network: Network) -> int:
    total = 0
    for key, pointer in network.buffers.items():
        data = np.empty(network.sizes[key], np.uint8)
        network.device.download(pointer, data)
        total = hash((total, data.tobytes()))
    return total
