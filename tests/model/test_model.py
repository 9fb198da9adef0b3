# SPDX-License-Identifier: Apache-2.0
"""Model checking with SPIN: each protocol holds in every interleaving, and stops holding when any one fence or ordering
that it names is taken away. A mutation that no longer fails means that the model does not look where it says it looks.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODELS = sorted(HERE.glob("*.pml"))
MUTATION = re.compile(r"^#if(?:n?)def (\w+)|defined\((\w+)\)", re.MULTILINE)
SETTINGS = {"KILLS", "PREEMPTIONS", "SLOTS", "ONE_ORDER"}  # what is explored, no mutations
# A model may be explored in more than one way; a mutation must fail in one of them.
RUNS: dict[str, list[list[str]]] = {"epoch": [[], ["-DONE_ORDER"]]}

pytestmark = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("gcc")), reason="needs spin and gcc: `make test-model` installs them"
)


def check(model: Path, work: Path, *definitions: str) -> tuple[bool, str]:
    """Explores every state of `model`. True when nothing can go wrong; the verifier's words in both cases."""
    subprocess.run(["spin", *definitions, "-a", str(model)], cwd=work, check=True, capture_output=True)
    subprocess.run(["gcc", "-w", "-O2", "-DSAFETY", "-DMEMLIM=4096", "-o", "pan", "pan.c"], cwd=work, check=True)
    run = subprocess.run(["./pan", "-m1000000"], cwd=work, capture_output=True, text=True, check=False)
    found = re.search(r"errors: (\d+)", run.stdout)
    assert found, run.stdout
    assert "max search depth too small" not in run.stdout, run.stdout  # otherwise the search was not complete
    return found[1] == "0", run.stdout


def mutations(model: Path) -> list[str]:
    names = {first or second for first, second in MUTATION.findall(model.read_text())} - SETTINGS
    assert names, f"{model.name} names no mutation"
    return sorted(names)


def runs(model: Path) -> list[list[str]]:
    return RUNS.get(model.stem, [[]])


@pytest.mark.parametrize(("model", "run"), [(m, run) for m in MODELS for run in runs(m)], ids=str)
def test_protocol_holds(model: Path, run: list[str], tmp_path: Path) -> None:
    holds, words = check(model, tmp_path, *run)
    assert holds, words


@pytest.mark.parametrize("model", [m for m in MODELS if "SPARE_" in m.read_text()], ids=lambda m: m.stem)
def test_spare_orderings_are_given_by_others_too(model: Path, tmp_path: Path) -> None:
    """Without all of them at once. One that is not spare any more belongs among the mutations."""
    holds, words = check(model, tmp_path, *(f"-D{name}" for name in mutations(model) if name.startswith("SPARE_")))
    assert holds, words


@pytest.mark.parametrize(
    ("model", "mutation"), [(m, x) for m in MODELS for x in mutations(m) if not x.startswith("SPARE_")], ids=str
)
def test_each_ordering_is_needed(model: Path, mutation: str, tmp_path: Path) -> None:
    for run in runs(model):
        holds, words = check(model, tmp_path, f"-D{mutation}", *run)
        if not holds:
            return
    pytest.fail(f"{model.name} still holds with {mutation}: the model does not cover it\n{words}")
