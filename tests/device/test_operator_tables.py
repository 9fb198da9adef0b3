# SPDX-License-Identifier: Apache-2.0
"""One operator table for each instruction set, none of which leaks code into another."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from reefd import _engine
from tests import ROOT

from .networks import Builder


@pytest.mark.parametrize("isa", _engine.instruction_sets())
def test_every_instruction_set_computes(isa: str) -> None:
    generator = np.random.default_rng(7)
    a = generator.normal(size=(3, 5, 7)).astype(np.float32)
    b = generator.normal(size=(5, 1)).astype(np.float32)
    build = Builder("m")
    x = build.input(a.shape)
    y = build.output(a.shape)
    t = build.arena(a.shape)
    build.kernel("binary", [x, build.weight(b)], t, function="sub")
    build.kernel("unary", [t], y, activation="leaky_relu", alpha=0.25)
    out = np.zeros_like(a)
    _engine.run_model(build.finish(), [a], [out], isa=isa)
    difference = a - b
    np.testing.assert_array_equal(out, np.where(difference >= 0, difference, np.float32(0.25) * difference))


def test_environment_chooses_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder("m")
    build.kernel("unary", [build.input([4])], build.output([4]), activation="relu")
    spec = build.finish()
    monkeypatch.setenv("REEF_CPU_ISA", "avx1024")
    with pytest.raises(_engine.ModelError, match="'avx1024' cannot be run here; available: portable"):
        _engine.run_model(spec, [np.zeros(4, np.float32)], [np.zeros(4, np.float32)])
    monkeypatch.setenv("REEF_CPU_ISA", "portable")
    _engine.run_model(spec, [np.zeros(4, np.float32)], [np.zeros(4, np.float32)])


def kernel_objects() -> list[Path]:
    """The operators' object files, of the newest build tree that has them."""
    found = sorted(ROOT.glob("build/*/kernels/CMakeFiles/kernels_*.dir/**/*.o"))
    if not found:
        pytest.skip("no object files under build/: `make setup` makes them")
    return found


def test_no_atomics_and_no_waiting() -> None:
    """What the operators' table promises of every kernel: no locked instruction, no exchange with memory, no pause."""
    wrong = []
    for path in kernel_objects():
        if "kernels_portable.dir" in str(path):
            listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], check=True, capture_output=True)
            found = re.findall(rb"\block |\bxchg\b.*\(|\bpause\b|\b[lm]fence\b", listing.stdout)
            wrong += [f"{path.name}: {found[0].decode()}"] if found else []
    assert not wrong


def test_no_shared_symbols() -> None:
    """A weak symbol would be merged over the instruction sets, and the portable table might then run AVX-512 code."""
    wrong = []
    for path in kernel_objects():
        isa = re.search(r"kernels_(\w+)\.dir", str(path)).group(1)  # type: ignore[union-attr]
        for line in subprocess.run(["nm", "-C", path], check=True, capture_output=True, text=True).stdout.splitlines():
            kind, name = line[17:].split(maxsplit=1)
            defined_here = kind in "TDRB"
            allowed = name.startswith(f"reef::cpu::{isa}::") or name == f"reef::cpu::operators_{isa}()"
            if kind in "WwVvuCi" or "std::" in name or "GLOBAL__sub_I" in name or (defined_here and not allowed):
                wrong.append(f"{path.relative_to(ROOT)}: {kind} {name}")
    assert not wrong, "\n".join(wrong)
