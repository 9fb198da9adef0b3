# SPDX-License-Identifier: Apache-2.0
"""The device and every kernel, built with a sanitizer into a program that runs whole networks (sanitized.cpp), and the
networks in the plain form that it reads."""

from pathlib import Path

import numpy as np

from reefd.compiler import compile_to_memory
from reefd.compiler.load import load
from reefd.compiler.operators import supported
from reefd.resource import restorable
from tests import ROOT
from tests.native import build_program

from .interrupting import _values

KINDS = {
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}
ENGINE = ["crash", "model", "model_check", "operator_arguments", "restorable", "runner"]
_STORAGE_KINDS = ["input", "output", "arena", "weight"]
_ACCESS = ["read", "write", "read_write"]
_DTYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13,
}  # fmt: skip


def build(kind: str) -> Path:
    """One program for each kind."""
    engine = ROOT / "reefd/engine"
    sources = [
        ROOT / "tests/exact/sanitized.cpp",
        *(path for path in sorted(engine.glob("cpu_*.cpp")) if path.stem not in ("cpu_isa", "cpu_start")),
        *(engine / f"{name}.cpp" for name in ENGINE),
        *sorted((ROOT / "kernels/cpu").glob("*.cpp")),
    ]
    isa = ["-DREEF_ISA=portable", "-DREEF_ISA_portable=1"]
    flags = ["-std=c++20", "-O2", "-g1", "-ffp-contract=off", "-fno-math-errno", *isa, *KINDS[kind]]
    return build_program(ROOT / "build/tests/exact" / kind / "sanitized", sources, flags)


def write(name: str, folder: Path) -> Path:
    """folder/name.txt and folder/name.bin; returns their path without the ending."""
    compiled = compile_to_memory(load(ROOT / f"resource/onnx/{name}.onnx", {}, supported), name)
    model = compiled.model
    words: list[object] = [name, model.arena_bytes, len(model.storage)]
    blob = bytearray()

    def place(data: np.ndarray | None) -> None:
        content = b"" if data is None else data.tobytes()
        words.extend([len(blob), len(content)])
        blob.extend(content)

    for storage in model.storage:
        words += [_STORAGE_KINDS.index(storage.kind), _DTYPES[storage.stype], len(storage.shape), *storage.shape]
        words += [storage.offset, storage.base]
        place(compiled.weights[storage.name] if storage.kind == "weight" and storage.base < 0 else None)
    words.append(len(model.kernels))
    for kernel in model.kernels:
        accesses = [_ACCESS.index(access) for access in restorable.accesses(kernel)]
        words += [kernel.op, len(kernel.args), *kernel.args, len(accesses), *accesses, len(kernel.attributes)]
        for key, value in kernel.attributes.items():
            words += [key, *_attribute(value)]
    words += [len(model.inputs), *model.inputs, len(model.outputs), *model.outputs]
    generator = np.random.default_rng(5)
    for index in model.inputs:
        place(_values(generator, model.storage[index].stype, model.storage[index].shape))
    (folder / f"{name}.txt").write_text(" ".join(map(str, words)))
    (folder / f"{name}.bin").write_bytes(blob)
    return folder / name


def _attribute(value: int | float | str | list[int | float]) -> list[object]:
    if isinstance(value, str):
        return ["s", value]
    if isinstance(value, list):
        integers = all(isinstance(item, int) for item in value)
        return ["I" if integers else "F", len(value), *value]
    return ["i" if isinstance(value, int) else "f", value]
