# SPDX-License-Identifier: Apache-2.0
"""What kernels/cpu/operators.inc marks with `=` may lie where the result lies: in place, every operator gives the bits
that it gives elsewhere, with any number of workers, and as a unit also when it is preempted and begun again."""

import re
from dataclasses import dataclass, field

import numpy as np
import pytest

from reefd import _engine
from tests import ROOT


@dataclass
class Case:
    """An instance whose argument `place` (an index into `shapes`) may be where the result is."""

    op: str
    attributes: dict[str, object]
    shapes: list[list[int]]  # of what it reads
    result: list[int]
    place: int
    constant: list[int] = field(default_factory=list)  # arguments that must be weights
    name: str = ""

    def __str__(self) -> str:
        return f"{self.op}-{self.name or next(iter(self.attributes.values()), '')}-{self.place}"


def conv(out: list[int], channels: int, kernel: int, **attributes: object) -> Case:
    """A convolution with bias and a residual of the result's shape, stride 1."""
    n, h, w, o = out
    group = int(attributes.get("group", 1))  # type: ignore[call-overload]
    filters = [o, channels // group, kernel, kernel]
    pads = [kernel // 2] * 4
    return Case(
        "conv2d", {"bias": 1, "residual": 1, "pads": pads, **attributes}, [[n, h, w, channels], filters, [o], out],
        out, 3, [1, 2], f"{o}x{channels}x{kernel}x{kernel}",
    )  # fmt: skip


def matmul(m: int, k: int, n: int, **attributes: object) -> Case:
    return Case("matmul", {"residual": 1, **attributes}, [[3, m, k], [3, k, n], [3, m, n]], [3, m, n], 2)


BIG = [3, 50, 701]
CASES = [
    *(Case("unary", {"activation": name}, [BIG], BIG, 0) for name in ("tanh", "gelu", "silu", "exp")),
    Case("unary", {"activation": "prelu"}, [BIG, [701]], BIG, 0, [1]),
    Case("map", {"function": "softplus"}, [BIG], BIG, 0),
    Case("affine", {"activation": "sigmoid"}, [BIG, [701], [701]], BIG, 0, [1, 2]),
    *(Case("binary", {"function": "sub", "activation": "tanh"}, [BIG, BIG], BIG, place) for place in (0, 1)),
    Case("binary", {"function": "mul"}, [BIG, [50, 1]], BIG, 0, name="broadcast"),
    Case("binary", {"function": "div"}, [[50, 1], BIG], BIG, 1, name="broadcast"),
    matmul(67, 45, 131),
    matmul(128, 64, 256, activation="relu"),
    conv([1, 19, 23, 40], 24, 3, activation="relu"),
    conv([1, 28, 28, 64], 64, 3),  # as a Winograd transform would have it
    conv([2, 13, 17, 96], 48, 1, activation="relu", activation_first=1),
    conv([1, 31, 29, 21], 13, 5, activation="silu"),
    conv([1, 17, 15, 72], 72, 3, activation="hard_swish"),
    conv([1, 9, 40, 56], 28, 3, group=2),
]


def build(case: Case, in_place: bool, rng: np.random.Generator) -> tuple[_engine.ModelSpec, list[np.ndarray]]:
    """The inputs are copied to the arena first; the result, wherever it lies, is copied out."""
    spec = _engine.ModelSpec(case.op, 1 << 24)
    inputs, args, sources, at = [], [], [], 0

    def arena(shape: list[int]) -> int:
        nonlocal at
        index = spec.add_storage(f"a{at}", "arena", "float32", shape, at)
        at += -(-4 * int(np.prod(shape)) // 64) * 64
        return index

    for index, shape in enumerate(case.shapes):
        data = rng.uniform(-1, 1, shape).astype(np.float32)
        if index in case.constant:
            args.append(spec.add_storage(f"w{index}", "weight", "float32", shape, data=data))
            continue
        inputs.append(data)
        sources.append(spec.add_storage(f"x{index}", "input", "float32", shape))
        args.append(arena(shape))
        spec.add_kernel(f"copy{index}", "slice", [sources[-1], args[-1]], ["read", "write"],
                        {"starts": [0] * len(shape), "steps": [1] * len(shape)})  # fmt: skip
    result = args[case.place] if in_place else arena(case.result)
    out = spec.add_storage("y", "output", "float32", case.result)
    spec.add_kernel("k", case.op, [*args, result], [*["read"] * len(args), "write"], case.attributes)  # type: ignore[list-item]
    spec.add_kernel("out", "slice", [result, out], ["read", "write"],
                    {"starts": [0] * len(case.result), "steps": [1] * len(case.result)})  # fmt: skip
    spec.set_inputs(sources)
    spec.set_outputs([out])
    return spec, inputs


@pytest.mark.parametrize("isa", _engine.instruction_sets())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_place_is_as_elsewhere(case: Case, isa: str) -> None:
    results = []
    for in_place in (False, True):
        spec, inputs = build(case, in_place, np.random.default_rng(3))
        for workers in (1, 3):
            device = _engine.CpuDevice(workers=workers, isa=isa)
            model = device.load(spec)
            assert (model.snapshot_bytes > 0) == in_place
            kernel = model.kernels.index("k")
            for interrupts in ([], [kernel] * 4):
                output = np.full(case.result, np.nan, np.float32)
                device.run(model, inputs, [output], preemptible=True, interrupt_at=interrupts, within_ns=60_000)
                results.append(output.tobytes())
    assert np.isfinite(output).all() and np.ptp(output) > 0
    assert len(set(results)) == 1


def test_every_marked_argument_is_tested() -> None:
    """An operator that gets a `=` must come here too."""
    lines = re.findall(r'^OPERATOR\((\w+), "(.*) ->', (ROOT / "kernels/cpu/operators.inc").read_text(), re.MULTILINE)
    marked = {(op, word.strip("?=")) for op, words in lines for word in words.split() if word.endswith("=")}
    tested = set()
    for case in CASES:
        bound = _engine.operator_arguments(case.op, case.attributes, len(case.shapes) + 1)
        assert bound is not None and bound[case.place][2]
        tested.add((case.op, bound[case.place][0]))
    assert len(lines) > 30 and tested == marked
