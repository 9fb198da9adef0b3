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
from reefd.bench.gpu_beside import LOADS

TARGET = "sm_90a"


def compile_network(folder: Path, name: str, batch: int, precision: str) -> str:
    """The resource NAME-PRECISION (of a larger batch: NAME-bBATCH-PRECISION), and for batch 1 NAME.onnx."""
    import onnx

    from reefd.compiler import Options, compile_model
    from reefd.zoo import build

    started = time.monotonic()
    label = name if batch == 1 else f"{name}-b{batch}"
    # A file for each process that writes one; the first has the network's name.
    source = folder / (f"{label}.onnx" if precision == PRECISIONS[0] else f"{label}-{precision}.onnx")
    onnx.save(build(name, batch=batch), source)
    options = Options(precision="float16" if precision == "float16" else "float32", processors=(TARGET,))
    summary = compile_model(source, folder / f"{label}-{precision}", options=options, name=label)
    return f"{label} {precision}: {summary.kernels} kernels, {time.monotonic() - started:.1f} s"


def wanted(networks: Sequence[str]) -> list[tuple[str, int, str]]:
    """(network, batch, precision): those measured alone in each precision, and what the loads run."""
    pairs = [(name, 1, precision) for name in networks for precision in PRECISIONS]
    loads = [(name, batch, "float16") for names, batch, _ in LOADS.values() for name in names]
    return list(dict.fromkeys([*pairs, *loads]))


def _one(arguments: tuple[Path, str, int, str]) -> str:
    try:
        return compile_network(*arguments)
    except Exception as error:
        return f"{arguments[1]}, batch {arguments[2]}, {arguments[3]}: {type(error).__name__}: {error}"


def prepare(folder: Path, networks: Sequence[str]) -> None:
    """Everything; says what fails, and goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    work = [(folder, *each) for each in wanted(networks)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for line in pool.map(_one, work):
            print(line, flush=True)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), sys.argv[2:] or NETWORKS)
