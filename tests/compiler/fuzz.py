# SPDX-License-Identifier: Apache-2.0
"""Compiles damaged and hostile models and reports what is neither a result nor a CompileError.

Bases are the models of the onnx package's operator tests. Each round changes one in one to four places of its
structure (shapes, tensors, edges, attributes, functions that call each other, branches in branches, external data, huge
results) or in its bytes, and compiles it in a child process with a limit on memory and on time. A crash, a hang, an
exception of another kind or a memory peak is a finding.

    python -m tests.compiler.fuzz [--rounds N] [--seed N] [--keep FOLDER]
"""

import argparse
import contextlib
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

SECONDS = 20  # for one model; the machine may be busy
MEMORY = 6 << 30  # of address space
PEAK = 1500 << 20  # resident
NUMBERS = (0, 1, -1, 2, 3, 7, 8, -2, 255, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63), 1 << 40)
FLOATS = (0.0, -1.0, 0.5, 1e30, -1e30, float("inf"), float("-inf"), float("nan"), 2.0)
NAMES = ("", "x", "../../x", "a\0b", "/etc/passwd", "%s%n", "y" * 5000, "\u202e", "x/../../..", "\n", "'\"<")
PLACES = (
    "../x",
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/mem",
    ".",
    "",
    "weights",
    "weights\0",
    "./weights",
    "a/../weights",
)
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})


@dataclass
class Mutator:
    random: random.Random

    def change(self, model: ModelProto) -> None:
        changes: list[Callable[[ModelProto], None]] = [
            self.shape, self.tensor, self.wire, self.wire, self.order, self.attribute, self.attribute, self.attribute,
            self.operator, self.opset, self.external, self.function, self.branch, self.huge, self.names, self.kind,
        ]  # fmt: skip
        self.random.choice(changes)(model)

    def number(self) -> int:
        return self.random.choice((*NUMBERS, self.random.randint(-5, 40)))

    def node(self, model: ModelProto) -> NodeProto:
        if not model.graph.node:
            model.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))
        return self.random.choice(model.graph.node)

    def shape(self, model: ModelProto) -> None:
        infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
        if not infos:
            return
        shape = self.random.choice(infos).type.tensor_type.shape
        if shape.dim and self.random.random() < 0.7:
            dim = self.random.choice(shape.dim)
            if self.random.random() < 0.2:
                dim.dim_param = self.random.choice(NAMES)
            else:
                dim.dim_value = self.number()
        elif self.random.random() < 0.5:
            shape.dim.add().dim_value = self.number()
        else:
            for _ in range(self.random.choice((1, 9, 300))):
                shape.dim.add().dim_value = 1

    def kind(self, model: ModelProto) -> None:
        infos = [*model.graph.input, *model.graph.output]
        if not infos:
            return
        info = self.random.choice(infos)
        if self.random.random() < 0.7:
            info.type.tensor_type.elem_type = self.random.randint(0, 40)
        elif self.random.random() < 0.5:
            info.type.sequence_type.elem_type.tensor_type.elem_type = 1
        else:
            info.ClearField("type")

    def tensor(self, model: ModelProto) -> None:
        tensors = [
            *model.graph.initializer,
            *(attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")),
        ]
        if not tensors:
            tensors = [model.graph.initializer.add()]
            tensors[0].name = (list(self.node(model).input[:1]) or ["x"])[0]
        tensor = self.random.choice(tensors)
        match self.random.randint(0, 6):
            case 0:
                tensor.dims.append(self.number())
            case 1 if tensor.dims:
                tensor.dims[self.random.randrange(len(tensor.dims))] = self.number()
            case 2:
                tensor.data_type = self.random.randint(-1, 40)
            case 3:
                tensor.raw_data = os.urandom(self.random.choice((0, 1, 3, 8, 64)))
            case 4:
                tensor.float_data.extend([1.0] * self.random.choice((1, 5)))
            case 5:
                tensor.ClearField("raw_data")
            case _:
                del tensor.dims[:]
                tensor.dims.extend([1] * self.random.choice((0, 9, 70)))

    def wire(self, model: ModelProto) -> None:
        """Other edges: cycles, missing values, two makers of one value."""
        node, other = self.node(model), self.node(model)
        known = [*NAMES, *other.output, *other.input, *(info.name for info in model.graph.input)]
        side = node.input if self.random.random() < 0.6 else node.output
        if side and self.random.random() < 0.7:
            side[self.random.randrange(len(side))] = self.random.choice(known)
        elif side and self.random.random() < 0.5:
            del side[self.random.randrange(len(side))]
        else:
            side.extend([self.random.choice(known)] * self.random.choice((1, 2, 50)))

    def order(self, model: ModelProto) -> None:
        nodes = list(model.graph.node)
        match self.random.randint(0, 3):
            case 0:
                self.random.shuffle(nodes)
            case 1:
                nodes = nodes * 2
            case 2 if nodes:
                nodes.pop(self.random.randrange(len(nodes)))
            case _:
                model.graph.output.extend(list(model.graph.output))
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)

    def attribute(self, model: ModelProto) -> None:
        node = self.node(model)
        if not node.attribute or self.random.random() < 0.3:
            names = [
                name for op in (node.op_type,) if onnx.defs.has(op) for name in onnx.defs.get_schema(op).attributes
            ]
            node.attribute.add().name = self.random.choice([*names, "axis", "to", "mode", "value", *NAMES])
        attribute = self.random.choice(node.attribute)
        value = self.random.choice(
            (self._int, self._float, self._ints, self._floats, self._text, self._graph, self._tensor, self._nothing)
        )  # fmt: skip
        name = attribute.name
        if self.random.random() < 0.7:
            attribute.Clear()
        attribute.name = name
        value(attribute)
        if self.random.random() < 0.1:
            attribute.type = self.random.randint(0, 20)  # type: ignore[assignment]

    def _int(self, attribute: AttributeProto) -> None:
        attribute.type, attribute.i = AttributeProto.INT, self.number()

    def _float(self, attribute: AttributeProto) -> None:
        attribute.type, attribute.f = AttributeProto.FLOAT, self.random.choice(FLOATS)

    def _ints(self, attribute: AttributeProto) -> None:
        attribute.type = AttributeProto.INTS
        attribute.ints.extend(self.number() for _ in range(self.random.choice((0, 1, 2, 2, 4, 4, 5, 1000))))

    def _floats(self, attribute: AttributeProto) -> None:
        attribute.type = AttributeProto.FLOATS
        attribute.floats.extend(self.random.choice(FLOATS) for _ in range(self.random.choice((0, 1, 4, 100))))

    def _text(self, attribute: AttributeProto) -> None:
        attribute.type, attribute.s = (
            AttributeProto.STRING,
            self.random.choice((b"", b"\xff\xfe", b"SAME_UPPER", b"x" * 9000)),
        )

    def _graph(self, attribute: AttributeProto) -> None:
        attribute.type = AttributeProto.GRAPH
        attribute.g.node.append(helper.make_node("Relu", ["x"], ["y"]))
        attribute.g.output.append(helper.make_tensor_value_info("y", 1, [1]))

    def _tensor(self, attribute: AttributeProto) -> None:
        attribute.type = AttributeProto.TENSOR
        attribute.t.data_type = self.random.choice((1, 7, 8, 9))
        attribute.t.dims.extend(self.number() for _ in range(self.random.randint(0, 3)))

    def _nothing(self, attribute: AttributeProto) -> None:
        attribute.type = AttributeProto.UNDEFINED

    def operator(self, model: ModelProto) -> None:
        node = self.node(model)
        if self.random.random() < 0.8:
            node.op_type = self.random.choice(OPERATORS)
        else:
            node.domain = self.random.choice(("ai.onnx.ml", "com.microsoft", "ai.onnx.training", *NAMES))

    def opset(self, model: ModelProto) -> None:
        if self.random.random() < 0.3:
            model.ir_version = self.number()
        elif model.opset_import and self.random.random() < 0.7:
            self.random.choice(model.opset_import).version = self.random.choice(
                (self.number(), self.random.randint(1, 26))
            )
        else:
            model.opset_import.add().domain = self.random.choice(("", "ai.onnx.ml", *NAMES))

    def external(self, model: ModelProto) -> None:
        if not model.graph.initializer:
            self.tensor(model)
        if not model.graph.initializer:
            return
        tensor = self.random.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=self.random.choice(PLACES))
        for key in ("offset", "length"):
            if self.random.random() < 0.4:
                tensor.external_data.add(
                    key=key, value=self.random.choice((*map(str, NUMBERS), "", "x", "1e3", "9" * 5000))
                )

    def function(self, model: ModelProto) -> None:
        """Functions that call each other, or themselves."""
        count = self.random.choice((1, 2, 30))
        for place in range(count):
            function = model.functions.add()
            function.name, function.domain = f"f{place}", "local"
            function.input.append("a")
            function.output.append("b")
            function.opset_import.add(domain="", version=17)
            function.opset_import.add(domain="local", version=1)
            called = f"f{self.random.randrange(count)}" if self.random.random() < 0.5 else f"f{place + 1}"
            doubling = self.random.choice((1, 1, 2, 4))
            middle = "a"
            for turn in range(doubling):
                result = "b" if turn + 1 == doubling else f"m{turn}"
                last = place + 1 == count and self.random.random() < 0.7
                domain = {"domain": ""} if last else {"domain": "local"}
                function.node.append(helper.make_node("Relu" if last else called, [middle], [result], **domain))
                middle = result
        model.opset_import.add(domain="local", version=1)
        node = self.node(model)
        model.graph.node.append(helper.make_node("f0", [*node.output[:1]] or ["x"], ["called"], domain="local"))

    def branch(self, model: ModelProto) -> None:
        """Branches in branches, or a loop."""
        source = self.node(model).output[:1]
        inner = helper.make_graph(
            [helper.make_node("Identity", source, ["r"])], "g", [], [onnx.ValueInfoProto(name="r")]
        )
        for _ in range(self.random.choice((1, 3, 20, 80))):
            made = (
                helper.make_node("If", ["cond"], ["r"], then_branch=inner, else_branch=inner)
                if inner.ByteSize() < 1 << 16
                else helper.make_node("If", ["cond"], ["r"], then_branch=inner)
            )
            inner = helper.make_graph([made], "g", [], [onnx.ValueInfoProto(name="r")])
        model.graph.initializer.append(helper.make_tensor("cond", TensorProto.BOOL, [], [self.random.random() < 0.5]))
        body = inner.node[0]
        if self.random.random() < 0.2:
            body.op_type = self.random.choice(("Loop", "Scan", "SequenceMap"))
        model.graph.node.append(body)
        model.graph.output.add().name = "r"

    def huge(self, model: ModelProto) -> None:
        """A small node that asks for a huge result."""
        extents = [self.random.choice((1 << 20, 1 << 31, 2**62, 1 << 12)) for _ in range(self.random.randint(1, 4))]
        model.graph.initializer.append(helper.make_tensor("extents", TensorProto.INT64, [len(extents)], extents))
        source = (list(self.node(model).output[:1]) or ["x"])[0]
        model.graph.node.append(
            self.random.choice((
                helper.make_node("ConstantOfShape", ["extents"], ["much"]),
                helper.make_node("Expand", [source, "extents"], ["much"]),
                helper.make_node("Tile", [source, "extents"], ["much"]),
                helper.make_node("Reshape", [source, "extents"], ["much"]),
                helper.make_node("Resize", [source, "", "", "extents"], ["much"]),
                helper.make_node("Pad", [source, "extents"], ["much"]),
                helper.make_node("OneHot", ["extents", "extents", "extents"], ["much"]),
                helper.make_node("RandomNormal", [], ["much"], shape=extents),
                helper.make_node("TopK", [source, "extents"], ["much", "places"]),
                helper.make_node("Split", [source, "extents"], ["much", "more"]),
                helper.make_node("Range", ["extents", "extents", "extents"], ["much"]),
                helper.make_node("MatMul", ["extents", "extents"], ["much"]),
            ))
        )  # fmt: skip
        if self.random.random() < 0.5:
            model.graph.node.append(helper.make_node("Concat", ["much"] * 50, ["most"], axis=0))

    def names(self, model: ModelProto) -> None:
        name = self.random.choice(NAMES)
        match self.random.randint(0, 3):
            case 0:
                self.node(model).name = name
            case 1 if model.graph.input:
                self.random.choice(model.graph.input).name = name
            case 2 if model.graph.output:
                self.random.choice(model.graph.output).name = name
            case _:
                model.graph.name = name

    def damage(self, content: bytes) -> bytes:
        damaged = bytearray(content)
        for _ in range(self.random.randint(1, 8)):
            place = self.random.randrange(len(damaged) + 1)
            match self.random.randint(0, 3):
                case 0:
                    del damaged[place : place + self.random.randint(1, 20)]
                case 1:
                    damaged[place:place] = os.urandom(self.random.randint(1, 4))
                case 2:
                    damaged[place : place + 1] = bytes([self.random.choice((0, 0x7F, 0x80, 0xFF, 1))])
                case _:
                    damaged[place : place + 9] = b"\xff" * 9
        return bytes(damaged)


def bases() -> list[bytes]:
    from tests.onnx import conformance

    found = [case.model.SerializeToString() for case in conformance.cases()]
    return [content for content in found if len(content) < 1 << 16]


def case(generator: random.Random, known: list[bytes]) -> bytes:
    mutator = Mutator(generator)
    model = ModelProto.FromString(generator.choice(known))
    for _ in range(generator.randint(1, 4)):
        with contextlib.suppress(
            ValueError, TypeError, DecodeError
        ):  # what protobuf itself does not let into a message
            mutator.change(model)
    content = model.SerializeToString()
    return mutator.damage(content) if generator.random() < 0.2 else content


def compile_case(path: Path) -> str:
    """A finding, or nothing."""
    from reefd.compiler import CompileError, compile_to_memory
    from reefd.compiler.load import load
    from reefd.compiler.operators import supported

    try:
        compile_to_memory(load(path, {}, supported), "fuzzed", str(path))
    except CompileError as error:
        return "" if str(error) and error.problems else "an error that says nothing"
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({Path(at.filename).name}:{at.lineno})"
    return ""


def child(folder: Path, seed: int, rounds: range, known: list[bytes]) -> None:
    """Never returns. Findings are lines of folder/findings; the model in work is folder/model.onnx."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stderr = sys.stdout = (folder / "output").open("a")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    for number in rounds:
        (folder / "round").write_text(str(number))
        content = case(random.Random(seed * 1_000_003 + number), known)
        (folder / "model.onnx").write_bytes(content)
        signal.alarm(SECONDS)
        finding = compile_case(folder / "model.onnx")
        signal.alarm(0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        if not finding and grown > max(peak, PEAK):
            finding = f"took {grown >> 20} MiB"
        peak = max(peak, grown)
        if finding:
            (folder / f"{seed}.{number}.onnx").write_bytes(content)
            with (folder / "findings").open("a") as file:
                file.write(f"{number}: {finding}\n")
    os._exit(0)


def fuzz(rounds: int, seed: int, folder: Path) -> list[str]:
    """Findings, one line each; the models lie in the folder as SEED.ROUND.onnx."""
    (folder / "weights").write_bytes(bytes(4096))
    known = bases()
    import reefd.compiler  # once, before the children are made

    assert reefd.compiler
    print(f"{len(known)} bases", flush=True)
    start = 0
    while start < rounds:
        pid = os.fork()
        if pid == 0:
            try:
                child(folder, seed, range(start, rounds), known)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        if status == 0:
            break
        number = int((folder / "round").read_text())
        (folder / "model.onnx").replace(folder / f"{seed}.{number}.onnx")
        ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
        with (folder / "findings").open("a") as file:
            file.write(f"{number}: {'hung' if ended == 'SIGALRM' else 'died of ' + ended}\n")
        start = number + 1
    findings = folder / "findings"
    return findings.read_text().splitlines() if findings.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where the models of findings stay")
    arguments: Any = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reef-fuzz-") as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        findings = fuzz(arguments.rounds, arguments.seed, folder)
    for line in findings:
        print(line)
    print(f"{arguments.rounds} models in {time.monotonic() - begin:.0f} s, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
