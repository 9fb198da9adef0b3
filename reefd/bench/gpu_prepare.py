# SPDX-License-Identifier: Apache-2.0
"""Makes what `reefctl bench gpu` measures: `python -m reefd.bench.gpu_prepare FOLDER [NETWORK ...]`.

Writes each network of the zoo with seeded weights and compiles it in both precisions, with all processors. No GPU is
needed.
"""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from reefd.bench.gpu import NETWORKS, PRECISIONS

TARGET = "sm_90a"


def compile_network(folder: Path, name: str, precision: str) -> str:
    """NAME.onnx, and the resource NAME-PRECISION."""
    import onnx

    from reefd.compiler import Options, compile_model
    from reefd.zoo import build

    started = time.monotonic()
    # A file for each process that writes one; the first has the network's name.
    source = folder / (f"{name}.onnx" if precision == PRECISIONS[0] else f"{name}-{precision}.onnx")
    onnx.save(build(name, 1), source)
    options = Options(precision="float16" if precision == "float16" else "float32", processors=(TARGET,))
    summary = compile_model(source, folder / f"{name}-{precision}", options=options, name=name)
    return f"{name} {precision}: {summary.kernels} kernels, {time.monotonic() - started:.1f} s"


def prepare(folder: Path, networks: Sequence[str]) -> None:
    """Everything; raises what the first failure raised."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(name, precision) for name in networks for precision in PRECISIONS]
    names, precisions = zip(*pairs, strict=True)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for line in pool.map(compile_network, [folder] * len(pairs), names, precisions):
            print(line, flush=True)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), sys.argv[2:] or NETWORKS)
