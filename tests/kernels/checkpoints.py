# SPDX-License-Identifier: Apache-2.0
"""The longest time between two check points of every kernel instance of well-known networks.

    python -m tests.kernels.checkpoints [--isa avx512] [--models resnet50,bert_base] [--worst 20]

A probe (kernels/cpu/kernel.hpp) makes every look at the epoch count and go on. An instance runs on one thread, from
its first block to its last, several times, with the caches emptied before; of each block the least counts, so that an
interrupt of the machine does not. Exits with 1 where a time exceeds 20 us.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from reefd import zoo
from reefd.bench.models import PERCEPTION
from reefd.compiler import Compiled, compile_to_memory
from reefd.compiler.load import from_model, load
from reefd.compiler.operators import supported
from reefd.resource.schema import Kernel, Storage
from tests import ROOT

from .harness import INSTRUCTION_SETS, Instance

LIMIT_US = 20.0
EVICTING = 48 << 20


def compiled(name: str) -> Compiled:
    if name in PERCEPTION:
        return compile_to_memory(load(ROOT / f"resource/onnx/{name}.onnx", {}, supported), name)
    return compile_to_memory(from_model(zoo.build(name), Path(name), {}, supported), name)


def instance_of(network: Compiled, kernel: Kernel, isa: str) -> Instance:
    """With random values in place of what other kernels write."""
    storages = [network.model.storage[index] for index in kernel.args]
    generator = np.random.default_rng(1)

    def tensor(storage: Storage) -> np.ndarray:
        if storage.kind == "weight":
            return network.weights[storage.name]
        if storage.stype.startswith("float"):
            return generator.uniform(-1, 1, storage.shape).astype(storage.stype)
        return generator.integers(0, 2, storage.shape).astype(storage.stype)

    constants = [place for place, storage in enumerate(storages) if storage.kind == "weight"]
    return Instance(
        kernel.op, [tensor(storage) for storage in storages], kernel.attributes, constants=constants, isa=isa,
        written=sum(access != "read" for access in kernel.access),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isa", default=INSTRUCTION_SETS[-1])
    parser.add_argument("--models", default=",".join([*PERCEPTION, *zoo.NETWORKS]))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--worst", type=int, default=20, help="how many instances to print")
    options = parser.parse_args()
    found: dict[str, tuple[float, float, int, str]] = {}  # what an instance is: gap, block time, blocks, network
    for name in options.models.split(","):
        network = compiled(name)
        for kernel in network.model.kernels:
            shapes = [network.model.storage[index].shape for index in kernel.args]
            key = f"{kernel.op} {' '.join('x'.join(map(str, shape)) for shape in shapes)} {kernel.attributes}"
            if key not in found:
                instance = instance_of(network, kernel, options.isa)
                gaps, times = instance.longest(options.rounds, EVICTING)
                found[key] = (max(gaps) * 1e6, max(times) * 1e6, instance.blocks, name)
    ordered = sorted(found.items(), key=lambda item: -item[1][0])
    print("  gap us  block us  blocks  instance")
    for key, (gap, time, blocks, name) in ordered[: options.worst]:
        print(f"{gap:8.1f} {time:9.1f} {blocks:7}  {name}: {key[:150]}")
    longest, block = ordered[0][1][0], max(time for _, time, _, _ in found.values())
    print(f"{len(found)} instances: at most {longest:.1f} us between check points, {block:.1f} us a block")
    return int(longest > LIMIT_US)


if __name__ == "__main__":
    sys.exit(main())
