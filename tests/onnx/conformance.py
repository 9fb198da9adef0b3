# SPDX-License-Identifier: Apache-2.0
"""The onnx package's own tests of its operators, through the compiler and the CPU kernels.

A test is static when every shape is known once the operands that decide shapes (SHAPE_OPERANDS) are constants. Prints
what passed, what is unsupported (by operator), and what failed; then compares the light_* networks, with random
weights, with ONNX Runtime. Exits 1 when anything failed.

    python -m tests.onnx.conformance [--filter TEXT] [--verbose] [--json FILE]
"""

import argparse
import collections
import itertools
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from reefd import _engine
from reefd.compiler import CompileError, compile_to_memory
from reefd.compiler.load import from_model
from reefd.compiler.operators import OPERATORS, supported
from reefd.compiler.tensors import ELEMENT_TYPES
from reefd.resource import Resource
from reefd.resource.load import model_spec

# Operands that decide a result's shape or how a kernel walks: bound as constants, as every exporter writes them.
SHAPE_OPERANDS = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1, 2), "Slice": (1, 2, 3, 4), "Pad": (1, 2, 3), "Resize": (1, 2, 3),
    "Upsample": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Split": (1,), "TopK": (1,), "OneHot": (1,), "CumSum": (1,),
    "CumProd": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2), "Trilu": (1,), "Dropout": (1, 2), "CenterCropPad":
    (1,), "ReduceSum": (1,), "ReduceMean": (1,), "ReduceMax": (1,), "ReduceMin": (1,), "ReduceProd": (1,), "ReduceL1":
    (1,), "ReduceL2": (1,), "ReduceSumSquare": (1,), "ReduceLogSum": (1,), "ReduceLogSumExp": (1,), "AffineGrid": (1,),
    "Col2Im": (1, 2), "MaxUnpool": (2,), "BlackmanWindow": (0,), "HannWindow": (0,), "HammingWindow": (0,),
}  # fmt: skip
# Operators of other element types than a request can carry: strings, sequences, optionals, 4- and 8-bit floats.
_KINDS = ("passed", "unsupported", "failed")


@dataclass
class Report:
    passed: list[str] = field(default_factory=list)
    unsupported: dict[str, tuple[str, str]] = field(default_factory=dict)  # test: operators, reason
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(getattr(self, kind)) for kind in _KINDS}


@dataclass(frozen=True)
class Case:
    name: str
    model: onnx.ModelProto
    data: list[tuple[list[object], list[object]]]
    rtol: float
    atol: float


def cases() -> Iterator[Case]:
    """The node tests, then those that came from PyTorch, then the small models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        for case in collect_testcases(None):
            if case.model is not None and case.data_sets:
                data = [([*map(_array, inputs)], [*map(_array, outputs)]) for inputs, outputs in case.data_sets]
                yield Case(case.name, case.model, data, case.rtol, case.atol)
    folder = Path(onnx.__file__).parent / "backend/test/data"
    for kind in ("pytorch-converted", "pytorch-operator", "simple"):
        for path in sorted((folder / kind).iterdir()):
            if (path / "model.onnx").exists():
                yield _stored(path)


def _array(value: object) -> object:
    """Tests of types that NumPy lacks carry tensors; those of its own types may as well."""
    if isinstance(value, onnx.TensorProto) and value.data_type in ELEMENT_TYPES:
        return numpy_helper.to_array(value)
    return value


def _stored(path: Path) -> Case:
    model = onnx.load(path / "model.onnx")
    data = []
    for place in sorted(path.glob("test_data_set_*")):
        sides: list[list[object]] = []
        for side, infos in (("input", model.graph.input), ("output", model.graph.output)):
            files = sorted(place.glob(f"{side}_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
            values: list[object] = []
            for file, info in zip(files, infos, strict=False):
                if info.type.HasField("tensor_type"):
                    values.append(numpy_helper.to_array(onnx.load_tensor(file)))
                else:
                    values.append(None)
            sides.append(values)
        data.append((sides[0], sides[1]))
    return Case(path.name, model, data, 1e-3, 1e-7)


def bind(model: onnx.ModelProto, inputs: Sequence[object]) -> onnx.ModelProto:
    """The model with what decides shapes as constants."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    deciding = {
        node.input[place]
        for node in model.graph.node
        for place in SHAPE_OPERANDS.get(node.op_type, ())
        if place < len(node.input)
    }
    kept = []
    for info, value in itertools.zip_longest(model.graph.input, inputs[: len(model.graph.input)]):
        if info.name in deciding and isinstance(value, np.ndarray):
            bound.graph.initializer.append(numpy_helper.from_array(value, info.name))
        else:
            kept.append(info)
    del bound.graph.input[:]
    bound.graph.input.extend(kept)
    return bound


def run(case: Case, isa: str = "") -> str:
    """Why it failed, or nothing. CompileError and ModelError say why it is not supported."""
    for inputs, outputs in case.data:
        for value in (*inputs, *outputs):
            if isinstance(value, onnx.TensorProto):
                kind = onnx.TensorProto.DataType.Name(value.data_type)
                raise Unsuited(f"no tensor of NumPy's: element type {kind} is not supported")
            if not isinstance(value, np.ndarray) and not np.isscalar(value):
                raise Unsuited("a sequence, an optional or no tensor at all")
        values = [np.asarray(value) for value in inputs]
        model = bind(case.model, values)
        feeds = dict(zip((info.name for info in case.model.graph.input), values, strict=False))
        shapes = {info.name: feeds[info.name].shape for info in model.graph.input if info.name in feeds}
        compiled = compile_to_memory(from_model(model, Path(case.name), shapes, supported), "test")
        file = compiled.model
        results = {
            file.storage[index].name: np.zeros(file.storage[index].shape, file.storage[index].stype)
            for index in file.outputs
        }
        arrays = [np.ascontiguousarray(feeds[file.storage[index].name]) for index in file.inputs]
        spec = model_spec(Resource(Path(), file, compiled.weights, ""))
        _engine.run_model(spec, arrays, list(results.values()), isa=isa)
        # An output without elements is no part of a request, and says itself what it is.
        expected = [wanted for wanted in map(np.asarray, outputs) if wanted.size]
        for (name, result), wanted in zip(results.items(), expected, strict=True):
            reason = _compare(result, wanted, case.rtol, case.atol)
            if reason:
                return f"{name}: {reason}"
    return ""


class Unsuited(Exception):
    """A test of something that is no tensor."""


def _compare(result: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> str:
    if result.shape != wanted.shape or result.dtype != wanted.dtype:
        return f"{result.dtype}{list(result.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
    if wanted.dtype == np.float16:  # the reference rounds after each step of an operator: a few units in the last place
        rtol = max(rtol, 4 * float(np.finfo(np.float16).eps))
    if np.allclose(result, wanted, rtol, atol, equal_nan=wanted.dtype.kind == "f"):
        return ""
    with np.errstate(all="ignore"):
        worst = np.nanmax(np.abs(result.astype(np.float64) - wanted.astype(np.float64)))
    return f"differs by {worst:.3g}"


def collect(text: str = "", isa: str = "", verbose: bool = False, every: int = 1) -> Report:
    """Runs the tests whose name contains `text`, or only each `every`-th of them."""
    report = Report()
    for number, case in enumerate(cases()):
        if text not in case.name or number % every:
            continue
        operators = ", ".join(sorted({node.op_type for node in case.model.graph.node}))
        try:
            reason = run(case, isa)
        except Unsuited as error:
            report.unsupported[case.name] = operators, str(error)
        except CompileError as error:
            report.unsupported[case.name] = operators, "; ".join(str(problem) for problem in error.problems)
        except Exception as error:
            report.failed[case.name] = f"{type(error).__name__}: {error}"
        else:
            if reason:
                report.failed[case.name] = reason
            else:
                report.passed.append(case.name)
        if verbose:
            print(case.name, report.failed.get(case.name, report.unsupported.get(case.name, "passed")))
    return report


def describe(report: Report) -> str:
    """The report as people read it."""
    by_operator: dict[str, list[str]] = collections.defaultdict(list)
    for name, (operators, _) in report.unsupported.items():
        by_operator[operators if len(operators) < 60 else "several"].append(name)
    lines = ["unsupported, by operator:"]
    for operators, names in sorted(by_operator.items(), key=lambda item: -len(item[1])):
        known = " (supported in other forms)" if operators in OPERATORS else ""
        lines.append(f"  {len(names):4} {operators}{known}")
    lines += [f"failed: {name}: {reason}" for name, reason in report.failed.items()]
    lines.append(", ".join(f"{count} {kind}" for kind, count in report.counts.items()))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", default="")
    parser.add_argument("--isa", default="")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report = collect(arguments.filter, arguments.isa, arguments.verbose)
    print(describe(report))
    wrong = [] if arguments.filter else _networks()
    if arguments.json:
        arguments.json.write_text(json.dumps({"counts": report.counts, "unsupported": report.unsupported}, indent=1))
    return 1 if report.failed or wrong else 0


def _networks() -> list[str]:
    """The light_* networks that differ from ONNX Runtime by more than 1e-4 of the largest value."""
    from . import light

    differences = {name: light.compare(name) for name in light.NAMES}
    for name, value in differences.items():
        print(f"light_{name}: max|a-b| / max|b| = {value:.1e}")
    return [name for name, value in differences.items() if not value <= 1e-4]


if __name__ == "__main__":
    sys.exit(main())
