# SPDX-License-Identifier: Apache-2.0
"""A model that cannot be compiled is refused with every reason at once, and no file makes the compiler crash."""

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reefd.compiler import CompileError, Options, Problem, compile_model
from reefd.compiler.load import load
from reefd.compiler.lower import lower
from reefd.compiler.operators import supported
from tests import ROOT

from .oracle import model_of, noise


def problems(path: Path, **shapes: list[int]) -> list[Problem]:
    with pytest.raises(CompileError) as caught:
        lower(load(path, shapes, supported), str(path))
    assert str(path) in str(caught.value)
    return caught.value.problems


def saved(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path


def test_all_problems_at_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], "determinant"),
        helper.make_node("DepthToSpace", ["x"], ["b"], "shuffle", blocksize=2, mode="XYZ"),
        helper.make_node("NonZero", ["x"], ["c"], "places"),
        helper.make_node("Relu", ["c"], ["d"], "after"),
        helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], ["e", "m", "v"], "norm", training_mode=1),
    ]
    feeds = {"x": noise(1, 4, 6, 6)}
    model = model_of(nodes, feeds, ["a", "b", "e"], {"s": np.ones(4, np.float32)})
    path = saved(tmp_path / "m.onnx", model)
    found = {p.node: p for p in problems(path)}
    assert set(found) == {"determinant", "shuffle", "places", "norm"}
    assert found["places"].operator == "NonZero" and "depends on data" in found["places"].reason
    assert "no kernel" in found["determinant"].reason
    assert found["shuffle"].attribute == "mode" and found["shuffle"].nearest == "DCR, CRD"
    assert found["norm"].attribute == "training_mode" and found["norm"].nearest == "inference"


def test_dynamic_dimensions_ask_for_a_shape(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, None, 8])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, None, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["y"])], "g", [info], [out])
    path = saved(
        tmp_path / "m.onnx", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )
    (problem,) = problems(path)
    assert "'image' has dynamic dimensions (Nx3x?x8)" in problem.reason
    assert "--shape image=1x3x1x8" in problem.reason
    assert compile_model(path, tmp_path / "out", options=Options({"image": [2, 3, 4, 8]})).kernels == 1


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("../secret", "outside the model's folder"),
        ("/etc/passwd", "outside the model's folder"),
        ("link", "outside the model's folder"),
        ("missing", "No such file"),
        ("short", "its shape needs 64"),
        (".", "not a regular file"),
    ],
)
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str, reason: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(64))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(bytes(60))
    feeds = {"x": noise(4, 4)}
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], feeds, ["y"], {"w": noise(4, 4, seed=1)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CompileError, match=reason):
        load(folder / "m.onnx", {}, supported)


def test_external_data_is_read(tmp_path: Path) -> None:
    feeds = {"x": noise(4, 4)}
    weights = noise(4, 4, seed=1)
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], feeds, ["y"], {"w": weights})
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    graph = load(tmp_path / "m.onnx", {}, supported)
    np.testing.assert_array_equal(graph.nodes[0].input(1).data, weights)


def test_a_constant_that_would_fill_the_memory(tmp_path: Path) -> None:
    shape = np.array([1 << 20, 1 << 20], np.int64)
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    model = model_of(nodes, {"x": noise(1, 1)}, ["y"], {"s": shape})
    (problem,) = problems(saved(tmp_path / "m.onnx", model))
    assert "more than is allowed" in problem.reason


def test_damaged_files_end_in_a_compile_error(tmp_path: Path) -> None:
    """Random damage to a real network: a result or one typed error, quickly."""
    content = (ROOT / "resource/onnx/face_detector.onnx").read_bytes()
    generator = random.Random(3)
    path = tmp_path / "damaged.onnx"
    refused, start = 0, time.monotonic()
    for round_ in range(150):
        damaged = bytearray(content)
        if round_ % 3 == 0:
            del damaged[generator.randrange(len(damaged)) :]
        for _ in range(generator.randint(1, 30)):
            # The structure is between the weights: damage near names and shapes as often as anywhere.
            place = generator.choice(
                [generator.randrange(len(damaged)), damaged.find(b"Conv", generator.randrange(len(damaged)))]
            )
            damaged[place : place + generator.randint(0, 3)] = bytes([generator.randrange(256)])
        path.write_bytes(damaged)
        try:
            lower(load(path, {}, supported), str(path))
        except CompileError:
            refused += 1
    assert refused > 50
    assert time.monotonic() - start < 120  # a hang, not a figure


def test_tensors_that_lie(tmp_path: Path) -> None:
    feeds = {"x": noise(4, 4)}
    for change in (
        lambda tensor: tensor.dims.extend([1 << 40]),
        lambda tensor: tensor.dims.__setitem__(0, -4),
        lambda tensor: setattr(tensor, "data_type", 99),
        lambda tensor: setattr(tensor, "raw_data", b"123"),
    ):
        model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], feeds, ["y"], {"w": noise(4, 4, seed=1)})
        change(model.graph.initializer[0])
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(CompileError):
            load(path, {}, supported)


def test_a_value_used_before_it_is_made(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": noise(2)}, ["y"])
    model.graph.node[0].input[0] = "z"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CompileError):
        load(path, {}, supported)


def model_over_x(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, shape: tuple[int, ...] = (2, 3)
) -> onnx.ModelProto:
    """x -> y, nothing about it inferred or checked."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)], ir_version=8
    )


def calling(model: onnx.ModelProto, *calls: tuple[str, list[str]]) -> onnx.ModelProto:
    """Local functions, each of which applies others one after the other; those that are none of them are ReLUs."""
    names = {name for name, _ in calls}
    for name, called in calls:
        values = ["a", *(f"m{place}" for place in range(len(called) - 1)), "b"]
        nodes = [
            helper.make_node(*(("Relu", [values[place]], [values[place + 1]]) if other not in names
                               else (other, [values[place]], [values[place + 1]])),
                             domain="local" if other in names else "")
            for place, other in enumerate(called)
        ]  # fmt: skip
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        model.functions.append(helper.make_function("local", name, ["a"], ["b"], nodes, imports))
    return model


CALL = [helper.make_node("f0", ["x"], ["y"], domain="local")]
EXP = [helper.make_node("Exp", ["c"], [f"d{place}"]) for place in range(8)]
HOSTILE = {
    "a function that calls itself": (calling(model_over_x(CALL), ("f0", ["f0"])), "calls itself"),
    "functions that call each other": (calling(model_over_x(CALL), ("f0", ["f1"]), ("f1", ["f0"])), "calls itself"),
    "2^30 nodes in thirty functions": (
        calling(model_over_x(CALL), *((f"f{n}", [f"f{n + 1}"] * 2) for n in range(30)), ("f30", ["Relu"])),
        "at most 100000",
    ),
    "functions 3,000 deep": (
        calling(model_over_x(CALL), *((f"f{n}", [f"f{n + 1}"]) for n in range(3000))), "too deeply"
    ),
    "an input that no machine holds": (
        model_over_x([helper.make_node("Relu", ["x"], ["y"])], shape=(2**62, 2**62)), "more than is allowed"
    ),
    "a triangle that no machine holds": (
        model_over_x([helper.make_node("Trilu", ["x"], ["y"])], shape=(1 << 16, 1 << 16)), "a constant of 4294967296"
    ),
    "folding without end": (
        model_over_x(
            [helper.make_node("ConstantOfShape", ["s"], ["c"]), *EXP, helper.make_node("Add", ["x", "d0"], ["y"])],
            {"s": np.array([1 << 26])}, (1,),
        ),
        "more than is allowed",
    ),
    "a range without end": (
        model_over_x(
            [helper.make_node("Range", ["a", "b", "c"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])],
            {"a": np.array(0.0, np.float32), "b": np.array(1e12, np.float32), "c": np.array(1.0, np.float32)}, (1,),
        ),
        "more than is allowed",
    ),
    "an equation without end": (
        model_over_x([helper.make_node("Einsum", ["x", "x"], ["y"], equation="..." * 1000 + "->")]), "makes no sense"
    ),
    "one output twice": (
        (lambda model: (model, model.graph.output.append(model.graph.output[0])))(
            model_over_x([helper.make_node("Relu", ["x"], ["y"])])
        )[0],
        "is declared 2 times",
    ),
    "a type that nobody knows": (
        (lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 77) or model)(
            model_over_x([helper.make_node("Relu", ["x"], ["y"])])
        ),
        "has element type 77",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_models(tmp_path: Path, what: str) -> None:
    model, reason = HOSTILE[what]
    path = saved(tmp_path / "m.onnx", model)
    assert any(reason in problem.reason for problem in problems(path))


def test_an_output_need_not_say_its_shape(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", model_over_x([helper.make_node("Relu", ["x"], ["y"])]))
    assert compile_model(path, tmp_path / "m").kernels == 1


def test_fuzzed_models_end_in_a_compile_error(tmp_path: Path) -> None:
    """In children with limits on memory and time; `make fuzz-onnx` tries many more."""
    command = [sys.executable, "-m", "tests.compiler.fuzz", "--rounds", "600", "--keep", tmp_path / "fuzz"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
