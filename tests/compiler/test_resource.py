# SPDX-License-Identifier: Apache-2.0
"""A resource folder is written whole, read back as it was, and refused with file and reason when anything is wrong."""

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from reefd import resource
from reefd.compiler import Compiled

from .oracle import compiled, model_of, noise


def small() -> Compiled:
    """A network with weights, one of them a scalar, an arena tensor, a view and two outputs."""
    feeds = {"x": noise(1, 4, 8, 8)}
    nodes = [
        helper.make_node("Add", ["x", "w"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Sigmoid", ["b"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
        helper.make_node("Div", ["two", "x"], ["z"]),
    ]
    constants = {"w": noise(1, 4, 8, 8, seed=1), "shape": np.array([1, 64], np.int64), "two": np.array(2, np.float32)}
    return compiled(model_of(nodes, feeds, ["y", "z"], constants))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    built = small()
    resource.write(tmp_path / "small", built.model, built.weights)
    return tmp_path / "small"


def resum(folder: Path) -> None:
    """Makes the hashes right again, so that a test reaches what comes after them."""
    names = ("model.json", "model.safetensors")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def refused(folder: Path, blamed: str, reason: str) -> None:
    with pytest.raises(resource.ResourceError, match=reason) as caught:
        resource.read(folder)
    assert caught.value.path.name == blamed
    assert str(folder) in str(caught.value)


def test_what_was_written_is_read(folder: Path) -> None:
    built, found = small(), resource.read(folder)
    assert found.model == built.model
    assert {name: array.tobytes() for name, array in found.weights.items()} == {
        name: array.tobytes() for name, array in built.weights.items()
    }
    assert all(not array.flags.writeable for array in found.weights.values())
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["small"]


def test_writing_again_replaces_the_folder(folder: Path) -> None:
    (folder / "profile.cpu.json").write_text("{}")
    built = small()
    resource.write(folder, built.model, built.weights)
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "model.json", "model.safetensors"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["small"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    built = small()
    with pytest.raises(resource.ResourceError, match="not a resource folder"):
        resource.write(tmp_path, built.model, built.weights)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "SHA256SUMS"])
def test_missing_or_special_files(folder: Path, name: str, tmp_path: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    refused(folder, name, "No such file")
    (tmp_path / "elsewhere").write_bytes(content)
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, name, "symbolic links")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, name, "not a regular file")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_every_damaged_byte_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    for place in random.Random(1).sample(range(len(content)), 40):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        (folder / name).write_bytes(damaged)
        refused(folder, name, "damaged or changed")
    (folder / name).write_bytes(content[:-1])
    refused(folder, name, "damaged or changed")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no hash of model.json"),
        (b"nonsense\n", "line 1 is not"),
        (b"0" * 64 + b"  ../../etc/passwd\n", "line 1 is not"),
        (b"\xff" * 80, "line 1 is not"),
        (b"0" * 64 + b"  model.json\n" + b"0" * 64 + b"  model.json\n", "names model.json again"),
    ],
)
def test_bad_sums(folder: Path, content: bytes, reason: str) -> None:
    (folder / "SHA256SUMS").write_bytes(content)
    refused(folder, "SHA256SUMS", reason)


def edit(model: dict[str, Any], *path: str | int, value: Any) -> None:
    place: Any = model
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value


def storage(model: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        s for s in model["storage"] if s.get("kind", "arena") == kind and s.get("base", -1) < 0
    )
    return found


def view(model: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in model["storage"] if s.get("base", -1) >= 0)
    return found


LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "version": (lambda m: edit(m, "version", value=2), "version 2"),
    "no version": (lambda m: m.pop("version"), "version 0"),
    "unknown key": (lambda m: edit(m, "surprise", value=1), "surprise"),
    "type": (lambda m: edit(m, "kernels", value="none"), "Expected `array`"),
    "negative arena": (lambda m: edit(m, "arena_bytes", value=-1), "arena_bytes"),
    "huge arena": (lambda m: edit(m, "arena_bytes", value=1 << 60), "arena_bytes"),
    "small arena": (lambda m: edit(m, "arena_bytes", value=64), "of an arena of 64"),
    "more alive than there is room": (lambda m: m.update(live_bytes=m["arena_bytes"] + 1), "live_bytes is"),
    "stype": (lambda m: edit(m, "storage", 0, "stype", value="float31"), "stype 'float31'"),
    "shape": (lambda m: edit(m, "storage", 0, "shape", value=[1, 2]), "its shape"),
    "negative extent": (lambda m: edit(m, "storage", 0, "shape", value=[-1, -256]), "shape"),
    "rank": (lambda m: edit(m, "storage", 0, "shape", value=[1] * 9), "shape"),
    "overflow": (lambda m: edit(m, "storage", 0, "shape", value=[1 << 40] * 4), "its shape"),
    "name": (lambda m: edit(m, "storage", 0, "name", value="a\nb"), "printable"),
    "misaligned": (lambda m: storage(m, "arena").update(offset=4), "aligned"),
    "beyond the arena": (lambda m: storage(m, "arena").update(offset=1 << 30), "arena"),
    "offset of an input": (lambda m: storage(m, "input").update(offset=64), "only an arena"),
    "base": (lambda m: view(m).update(base=10_000), "base 10000"),
    "base is a view": (lambda m: view(m).update(base=m["storage"].index(view(m))), "is a view itself"),
    "outside its base": (lambda m: view(m).update(offset=64), "within its base"),
    "inputs": (lambda m: edit(m, "inputs", value=[]), "inputs are"),
    "outputs twice": (lambda m: m["outputs"].append(m["outputs"][0]), "outputs are"),
    "args": (lambda m: edit(m, "kernels", 0, "args", value=[0, 1, 99_999]), "args"),
    "no op": (lambda m: m["kernels"][0].pop("op"), "names no op"),
    "too many accesses": (lambda m: m["kernels"][0]["access"].append("read"), "accesses"),
    "writes a weight": (
        lambda m: edit(m, "kernels", 0, "access", value=["read", "write", "write"]),
        "of kind 'weight'",
    ),
    "writes its input": (
        lambda m: edit(m, "kernels", 0, "access", value=["write", "read", "write"]),
        "of kind 'input'",
    ),
    "undeclared access": (lambda m: m["kernels"][0].pop("access"), "which is of kind 'input'"),
    "reads and writes": (
        lambda m: edit(m, "kernels", 0, "access", value=["read", "read", "read_write"]),
        "the resource says that it reads and writes",
    ),
    "overwrites its operand": (
        lambda m: edit(m, "kernels", 1, "args", value=[m["kernels"][1]["args"][0]] * 2),
        "not restorable: what it writes",
    ),
    "reads before it is written": (lambda m: m["kernels"].reverse(), "before anything wrote it"),
    "output not written": (lambda m: m["kernels"].pop(), "the model returns"),
    "attribute": (lambda m: m["kernels"][0]["attributes"].update(big=[0] * 5000), "5000 items"),
    "attribute beyond 64 bits": (lambda m: m["kernels"][0]["attributes"].update(big=1 << 63), "64 bits"),
    "weight is missing": (lambda m: storage(m, "weight").update(name="other"), "'other' is not in the weight file"),
    "weight of another shape": (lambda m: storage(m, "weight").update(shape=[1, 8, 4, 8]), "is float32"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_model_that_lies_is_refused(folder: Path, lie: str) -> None:
    change, reason = LIES[lie]
    model = json.loads((folder / "model.json").read_text())
    change(model)
    (folder / "model.json").write_text(json.dumps(model))
    resum(folder)
    refused(folder, "model.json", reason)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"null", b"1e999", b'{"name": "\\ud800"}']
)
def test_hostile_json(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    resum(folder)
    refused(folder, "model.json", ".")


def header(entries: object, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"\xff" * 8, "header of"),
        (b"\xff" * 8 + b"{}", "header of"),
        (header([]), "header"),
        (header({"w": 1}), "header"),
        (header({"w": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), "dtype"),
        (header({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"), "shape"),
        (header({"w": {"dtype": "F32", "shape": [1 << 60, 16], "data_offsets": [0, 4]}}, b"1234"), "its shape needs"),
        (header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, b"1234"), "its shape needs"),
        (header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"), "its shape needs"),
        (header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345"), "after the last"),
    ],
)
def test_hostile_weights(folder: Path, content: bytes, reason: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    resum(folder)
    refused(folder, "model.safetensors", reason)


def test_not_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "nothing", "No such file")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "file", "Not a directory")


def test_random_damage_behind_right_hashes(folder: Path) -> None:
    """Whatever is in the files, reading ends in a resource that passed every check, or in one typed error."""
    generator = random.Random(2)
    originals = {name: (folder / name).read_bytes() for name in ("model.json", "model.safetensors")}
    refusals = 0
    for _ in range(400):
        name = generator.choice(list(originals))
        content = bytearray(originals[name])
        for _ in range(generator.randint(1, 4)):
            start = generator.randrange(len(content))
            piece = generator.choice([b"", b"-", b"9" * 20, b"null", b'"', b"[", bytes([generator.randrange(256)])])
            content[start : start + generator.randint(0, 8)] = piece
        (folder / name).write_bytes(content)
        resum(folder)
        try:
            resource.read(folder)
        except resource.ResourceError:
            refusals += 1
        (folder / name).write_bytes(originals[name])
    assert refusals > 200
