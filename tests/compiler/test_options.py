# SPDX-License-Identifier: Apache-2.0
"""What else than the model decides a resource: precision, targets, names. And who is told how far it is."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from reefd import resource, zoo
from reefd.compiler import STAGES, CompileError, Options, compile_model, compile_to_memory
from reefd.compiler.load import from_model
from reefd.compiler.operators import supported
from reefd.compiler.targets import known_targets, parse_targets
from reefd.gpu import compile as gpu_compile
from reefd.gpu import source, stored
from reefd.resource.read import read_code
from reefd.resource.tensors import parse
from tests import ROOT

from .oracle import difference, model_of, noise, reference, run
from .test_networks import picture

IRIS = ROOT / "resource/onnx/iris.onnx"
HALF = Options(precision="float16")


def test_half_precision_is_stored_in_half_the_room(tmp_path: Path) -> None:
    whole = compile_model(IRIS, tmp_path / "iris")
    summary = compile_model(IRIS, tmp_path / "iris16", options=HALF)
    assert summary.weight_bytes < 0.55 * whole.weight_bytes
    path = tmp_path / "iris16/model.safetensors"
    stored = parse(path, memoryview(path.read_bytes()))
    assert sum(array.nbytes for array in stored.values()) == summary.weight_bytes
    assert {array.dtype.name for array in stored.values() if array.ndim > 1} == {"float16"}
    read = resource.read(tmp_path / "iris16")
    assert read.model.precision == "float16" and resource.read(tmp_path / "iris").model.precision == "float32"
    assert {array.dtype.name for array in read.weights.values()} == {"float32"}
    graph = from_model(onnx.load(IRIS), IRIS, {}, supported)
    compiled = compile_to_memory(graph, "iris16", options=HALF)
    for name, array in compiled.weights.items():
        np.testing.assert_array_equal(read.weights[name], array)
    wanted = reference(onnx.load(IRIS), {"image": picture("iris")})
    outputs = run(compiled, {"image": picture("iris")})
    errors = [difference(outputs[name], wanted[name]) for name in wanted]
    assert 1e-6 < max(errors) < 1e-2  # the weights were rounded, and that is all


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet"])
def test_half_precision_agrees_with_onnx_runtime(name: str) -> None:
    model = zoo.build(name)
    feeds = {"image": noise(1, 3, 224, 224)}
    outputs = run(compile_to_memory(from_model(model, Path(name), {}, supported), name, options=HALF), feeds)
    for key, array in reference(model, feeds).items():
        assert difference(outputs[key], array) < 1e-2


def test_what_halves_cannot_hold_stays() -> None:
    weights = noise(8, 8, seed=1) * np.float32(1e5)
    feeds = {"x": noise(4, 8)}
    model = model_of([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], feeds, ["y"], {"w": weights})
    compiled = compile_to_memory(from_model(model, Path("m"), {}, supported), "m", options=HALF)
    np.testing.assert_array_equal(next(iter(compiled.weights.values())), weights)


def test_targets() -> None:
    assert parse_targets(["cpu"]) == []
    assert parse_targets(["cpu", "cuda:sm_90", "hip:gfx906", "cuda:sm_90a"]) == ["sm_90a", "gfx906"]
    for unknown in ("gpu", "cuda", "cuda:sm_70", "hip:sm_90", "cuda:host", "host", "", "CPU", "cuda:../x"):
        with pytest.raises(ValueError, match=f"unknown target '{unknown}'; there are: {', '.join(known_targets())}"):
            parse_targets([unknown])


def test_code_objects_lie_in_the_resource(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "compile_source", lambda source, target: f"{target} {len(source)}".encode())
    monkeypatch.setattr(stored, "code_resources", lambda target, code: {})  # it is no code that could be read
    told: list[tuple[str, int, int]] = []

    class Teller:
        def stage(self, name: str) -> None:
            told.append((name, 0, 0))

        def step(self, done: int, total: int, what: str) -> None:
            told.append((what, done, total))

    folder = tmp_path / "iris"
    summary = compile_model(IRIS, folder, options=Options(processors=["gfx906"]), progress=Teller())
    assert tuple(name for name, _, total in told if total == 0) == STAGES
    assert all(done < total for _, done, total in told if total)
    assert any(what.startswith("gfx906 conv") for what, _, _ in told)
    loaded = resource.read(folder)
    code = read_code(loaded, "gfx906")
    assert code is not None and sum(array.nbytes for array in code.objects.values()) == summary.code_bytes["gfx906"] > 0
    assert all(bytes(array).startswith(b"gfx906 ") for array in code.objects.values())
    assert read_code(loaded, "sm_90a") is None
    assert compile_model(IRIS, folder, options=Options(processors=["gfx906"]), only_if_stale=True).fresh
    assert not compile_model(IRIS, folder, only_if_stale=True).fresh  # without the code now
    with pytest.raises(resource.ResourceError, match="compiled again"):
        read_code(loaded, "gfx906")
    compile_model(IRIS, folder, options=Options(processors=["gfx906"]))
    path = folder / "code.gfx906.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(resource.ResourceError, match="damaged"):
        read_code(resource.read(folder), "gfx906")


def test_code_of_other_kernels_is_not_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon refuses it and says that the model must be compiled again: then --if-stale has to do it."""
    monkeypatch.setattr(stored, "compile_source", lambda source, target: f"{target} {len(source)}".encode())
    monkeypatch.setattr(stored, "code_resources", lambda target, code: {})
    folder, headers = tmp_path / "iris", tmp_path / "kernels"
    shutil.copytree(source.headers_dir(), headers)
    monkeypatch.setattr(source, "headers_dir", lambda: headers)
    both = Options(processors=["gfx906", "sm_90a"])

    def fresh() -> bool:
        return compile_model(IRIS, folder, options=both, only_if_stale=True).fresh

    assert not fresh() and fresh()
    gate, amd = headers / "gate.cuh", headers / "target_hip.cuh"
    gate.write_text("// Another remark.\n" + gate.read_text())
    assert fresh()
    for header in (gate, amd):  # of every device, and of one
        header.write_text(header.read_text() + "\nstruct Another;\n")
        assert not fresh() and fresh()
    read = resource.read(folder)
    code = read_code(read, "sm_90a")
    assert code is not None
    old = msgspec.structs.replace(code.file, version=code.file.version - 1)
    resource.write_code(read, "sm_90a", code._replace(file=old))
    assert not fresh() and fresh()


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_compile, "find_clang", lambda: None)
    monkeypatch.setattr(gpu_compile.bindings, "hiprtc", lambda source, options: None)
    with pytest.raises(CompileError, match=r"target gfx906: clang was not found; install it with: apt-get"):
        compile_model(IRIS, tmp_path / "iris", options=Options(processors=["gfx906"]))
    assert not (tmp_path / "iris").exists()


def test_a_kernel_without_a_gpu_form_is_named(tmp_path: Path) -> None:
    feeds = {"x": noise(4, 8), "u": noise(4, 8)}
    places = {"at": np.zeros((4, 8), np.int64)}
    node = onnx.helper.make_node("ScatterElements", ["x", "at", "u"], ["y"], "spread", axis=0)
    onnx.save(model_of([node], feeds, ["y"], places), tmp_path / "m.onnx")
    with pytest.raises(
        CompileError, match=r"target gfx906: kernel 'spread' \(scatter_elements\): there is no GPU kernel"
    ):
        compile_model(tmp_path / "m.onnx", tmp_path / "m", options=Options(processors=["gfx906"]))


@pytest.mark.parametrize("name", ["x" * 64, "\u00e4" * 32, "a\0b", "a\nb"])
def test_names_that_a_region_cannot_hold(tmp_path: Path, name: str) -> None:
    model = model_of([onnx.helper.make_node("Relu", ["x"], ["y"])], {"x": noise(2)}, ["y"])
    for place in (model.graph.input[0], model.graph.output[0]):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        old, place = place.name, name
        for node in changed.graph.node:
            node.input[0] = name if node.input[0] == old else node.input[0]
            node.output[0] = name if node.output[0] == old else node.output[0]
        for info in (*changed.graph.input, *changed.graph.output):
            info.name = name if info.name == old else info.name
        path = tmp_path / "m.onnx"
        path.write_bytes(changed.SerializeToString())
        with pytest.raises(CompileError, match="1 to 63 bytes"):
            compile_model(path, tmp_path / "m")
