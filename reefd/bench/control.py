# SPDX-License-Identifier: Apache-2.0
"""The control of benchmarks with a daemon: the same network on a device in the client's own process, above every
ordinary thread. What it loses in a window, the machine took from it: another program's system calls, a hypervisor that
gives away a processor or puts two on one core, caches that a load emptied. None of it is the daemon's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reefd._engine import CpuDevice
from reefd.resource import read
from reefd.resource.load import model_spec


class Control:
    """One network, ready to run."""

    def __init__(self, folder: Path) -> None:
        found = read(folder)
        storage = found.model.storage
        self._device = CpuDevice(realtime=True)
        self._model = self._device.load(model_spec(found))
        random = np.random.default_rng(1)
        self._inputs = [random.uniform(-1, 1, storage[i].shape).astype(np.float32) for i in found.model.inputs]
        self._outputs = [np.zeros(storage[i].shape, storage[i].stype) for i in found.model.outputs]

    def run(self) -> int:
        """How long it took, in nanoseconds."""
        return int(self._device.run(self._model, self._inputs, self._outputs)["each_ns"][0])
