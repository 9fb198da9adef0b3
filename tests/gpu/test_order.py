# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of the order that gate.cuh asks for: read in the machine code of sm_90."""

import functools
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from reefd.gpu.compile import compile_source
from reefd.gpu.conv import ConvShape, Tile, conv_kernels
from reefd.gpu.elementwise import unary_kernel
from reefd.gpu.source import kernel_source

nvidia = pytest.importorskip("nvidia", reason="needs: pip install 'reefd[cuda]' nvidia-cuda-nvdisasm")
DISASSEMBLERS = [p for root in nvidia.__path__ for p in Path(root).glob("*/bin/nvdisasm")]
if not DISASSEMBLERS:
    pytest.skip("needs: pip install nvidia-cuda-nvdisasm", allow_module_level=True)

HALF = {"dtype": "float16", "bias": True, "activation": "relu"}
TILE = Tile(16, 32, 128, 1, 2, slices=2, stages=6, tensor_cores=True)
KERNELS = {
    # A frequent layer of ResNet-50, one whose k is cut by clusters, and an element-wise one with constants.
    "conv": conv_kernels(ConvShape(1, 14, 14, 1024, 256, **HALF), TILE)[0],
    "cluster": conv_kernels(
        ConvShape(1, 14, 14, 256, 256, (3, 3), (1, 1), (1, 1, 1, 1), **HALF), TILE._replace(stages=4, cluster=4)
    )[0],
    "unary": unary_kernel(196, 64, activation="relu", affine=True, dtype="float16"),
}
EPOCH = "LDG.E.STRONG.GPU"


@functools.cache
def machine_code(name: str) -> dict[str, list[str]]:
    """The instructions of a kernel's forms, "plain" and "preemptible"; predicates left out."""
    kernel = KERNELS[name]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compile_source(kernel_source([kernel], "cuda"), "sm_90a"))
        file.flush()
        done = subprocess.run([DISASSEMBLERS[0], "-c", file.name], capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            found[section[1]] = []
        elif found and (instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(.*?)\s*;", line)):
            found[list(found)[-1]].append(instruction[1])
    return {"plain": found[kernel.name], "preemptible": found[f"{kernel.name}_p"]}


def behind(code: list[str], what: str) -> list[str]:
    return code[next(i for i, each in enumerate(code) if each.startswith(what)) + 1 :]


@pytest.mark.parametrize("name", KERNELS)
def test_the_epoch_is_asked_for_before_the_data_and_looked_at_behind_the_barrier(name: str) -> None:
    waited = behind(machine_code(name)["preemptible"], "ACQBULK")
    barrier = next(i for i, each in enumerate(waited) if each.startswith("BAR.SYNC"))
    loads = [each for each in waited[:barrier] if each.startswith(("LDG.", "LDGSTS"))]
    assert loads[0].startswith(EPOCH), loads
    assert len(loads) > 1 and not any(each.startswith(EPOCH) for each in loads[1:]), loads
    # Its register is stored, and nothing else is done with it before the barrier.
    register = loads[0].split()[1].rstrip(",")
    assert re.fullmatch(r"R\d+", register)
    until = behind(waited, EPOCH)
    until = until[: next(i for i, each in enumerate(until) if each.startswith(("BAR.SYNC", "STS")))]
    assert not any(re.search(rf"\b{register}\b", each) for each in until), until


@pytest.mark.parametrize("name", ["conv", "cluster"])
def test_the_loop_of_a_short_block_is_the_plain_forms(name: str) -> None:
    for instruction in ("HMMA", "LDSM", "LDGSTS"):
        counts = [sum(each.startswith(instruction) for each in form) for form in machine_code(name).values()]
        assert counts[0] == counts[1] > 0, (instruction, counts)


def test_blocks_of_a_cluster_do_not_wait_for_the_whole_device() -> None:
    plain = machine_code("cluster")["plain"]
    assert sum(each.startswith("UCGABAR_WAIT") for each in plain) == 2
    assert not [each for each in plain if each.startswith("MEMBAR") and "GPU" in each]


def test_a_cluster_that_leaves_has_what_it_asked_others_for() -> None:
    """A load from a block that has gone is a fault, and no barrier waits for loads: all of them are looked at."""
    code = machine_code("cluster")["preemptible"]
    # Where it is decided from all that was loaded; the word itself means nothing.
    decided = next((i for i, each in enumerate(code) if re.match(r"STS \[.*\+0x44\]", each)), None)
    assert decided is not None, "nothing is done with what was loaded"
    assert next(each for each in code[decided:] if each.startswith(("UCGABAR", "EXIT"))) == "UCGABAR_ARV"
    met = next(i for i, each in enumerate(code) if each.startswith("UCGABAR_WAIT"))
    loads = [(i, re.match(r"LD\.E\.128 R(\d+),", code[i])) for i in range(met, decided)]
    asked = [(i, int(load[1]) + word) for i, load in loads if load for word in range(4)]
    assert asked
    for i, register in asked:
        assert any(re.search(rf"\bR{register}\b", each) for each in code[i + 1 : decided]), (code[i], register)
