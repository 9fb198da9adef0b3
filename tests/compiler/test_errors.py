# SPDX-License-Identifier: Apache-2.0
"""A model that cannot be compiled is refused with every reason at once, and no file makes the compiler crash."""

import random
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from oracle import model_of, noise

from reefd.compiler import CompileError, Options, Problem, compile_model
from reefd.compiler.load import load
from reefd.compiler.lower import lower
from reefd.compiler.operators import supported

ROOT = Path(__file__).resolve().parents[2]


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
    assert [(p.node, p.operator) for p in problems(path)] == [("places", "NonZero")]
    del model.graph.node[2:4]
    found = {p.node: p for p in problems(saved(path, model))}
    assert set(found) == {"determinant", "shuffle", "norm"}
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
