# SPDX-License-Identifier: Apache-2.0
"""Which instances may be begun again: the control plane's checker and the engine's agree on any overlap, and
`reefctl verify` prints the proof or the instance that breaks it."""

import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reefd import _engine, cli_verify, resource
from reefd.resource import Kernel, ModelFile, Resource, ResourceError, Storage, restorable
from reefd.resource.load import model_spec
from reefd.resource.ranges import Ranges

ELEMENTS = 64
BYTE = st.integers(0, 40)


def schedule(kernels: list[Kernel], storages: list[Storage], arena: int) -> ModelFile:
    """in -> fills the arena -> `kernels` -> all of the arena -> out. Storages 0 to 2 are in, out, all of the arena."""
    size = arena // 4
    ends = [Storage("in", size, "float32", "input", [size]), Storage("out", size, "float32", "output", [size])]
    everything = Storage("all", size, "float32", "arena", [size])
    attributes: dict[str, object] = {"activation": "tanh"}
    first = Kernel("fill", [0, 2], "unary", ["read", "write"], attributes)  # type: ignore[arg-type]
    last = Kernel("last", [2, 1], "unary", ["read", "write"], attributes)  # type: ignore[arg-type]
    return ModelFile("m", [*ends, everything, *storages], [first, *kernels, last], [0], [1], arena, version=1)


def places(draw: st.DrawFn, count: int, sizes: list[int]) -> list[Storage]:
    """Arena storages anywhere, some of them views of all of it."""
    made = []
    for index in range(count):
        size = draw(st.sampled_from(sizes))
        offset = 64 * draw(st.integers(0, (4 * ELEMENTS * 4 - 4 * size) // 64))
        base = 2 if draw(st.booleans()) else -1
        made.append(Storage(f"s{index}", size, "float32", "arena", [size], offset, base))
    return made


@st.composite
def suspects(draw: st.DrawFn) -> ModelFile:
    op, count = draw(st.sampled_from([("unary", 2), ("binary", 3), ("where", 4), ("concat", 3), ("layer_norm", 2)]))
    storages = places(draw, count, [ELEMENTS] if op != "concat" else [ELEMENTS, 2 * ELEMENTS])
    if op == "where":
        storages[0] = Storage("s0", ELEMENTS, "bool", "arena", [ELEMENTS], storages[0].offset, -1)
    attributes = {"unary": {"activation": "relu"}, "binary": {"function": "add"}, "concat": {"axis": 0}}.get(op, {})
    access = [*["read"] * (count - 1), "write"]
    kernel = Kernel("suspect", list(range(3, 3 + count)), op, access, attributes)  # type: ignore[arg-type]
    return schedule([kernel], storages, 4 * ELEMENTS * 4)


@settings(max_examples=300, deadline=None)
@given(suspects())
def test_the_two_checkers_agree(file: ModelFile) -> None:
    """On every overlap: the same instances refused, the same bytes saved. The engine's model is asked what it saves."""
    device = _engine.CpuDevice(workers=1)
    try:
        found = list(restorable.instances(file))
        ours: int | None = max(instance.saved_bytes for instance in found)
    except restorable.Fault as fault:
        assert "kernel 'suspect'" in str(fault) and re.search(r"bytes \d+ to \d+ of the arena", str(fault))
        ours = None
    try:
        theirs: int | None = device.load(model_spec(Resource(Path(), file, {}, ""))).snapshot_bytes
    except _engine.ModelError as error:
        if not re.search("overlaps .* the result would depend", str(error)):
            return  # the operator refuses these shapes: nothing to compare
        theirs = None
    assert ours == theirs


@given(st.lists(st.tuples(st.booleans(), BYTE, BYTE), max_size=40), st.tuples(BYTE, BYTE))
def test_ranges_are_sets_of_bytes(steps: list[tuple[bool, int, int]], asked: tuple[int, int]) -> None:
    ranges, bytes_ = Ranges(), set[int]()
    for adds, begin, end in steps:
        (ranges.add if adds else ranges.remove)("m", begin, end)
        bytes_ = bytes_ | set(range(begin, end)) if adds else bytes_ - set(range(begin, end))
    held = [(begin, end) for _, begin, end in ranges]
    assert {byte for begin, end in held for byte in range(begin, end)} == bytes_
    assert held == sorted(held) and all(a[1] < b[0] for a, b in itertools.pairwise(held))
    inside = set(range(*asked)) & bytes_
    assert {byte for begin, end in ranges.overlap("m", *asked) for byte in range(begin, end)} == inside
    assert ranges.covers("m", *asked) == (inside == set(range(*asked)))


def rounds(text: str) -> dict[str, int]:
    return {name: int(count) for count, name in re.findall(r"(\d+) (restorable|units)", text)}


def written(tmp_path: Path, file: ModelFile) -> Path:
    resource.write(tmp_path / "model", file, {})
    return tmp_path / "model"


def unit_file() -> ModelFile:
    """A kernel in place, one whose result lies where its operand lay under another name, one restorable."""
    size = 4 * ELEMENTS
    reuse = Storage("reuse", size, "float32", "arena", [size])
    tanh: dict[str, object] = {"activation": "tanh"}
    kernels = [
        Kernel("in_place", [2, 2], "unary", ["read", "write"], tanh),  # type: ignore[arg-type]
        Kernel("reuse", [2, 0, 3], "binary", ["read", "read", "write"], {"function": "add"}),
    ]
    return schedule(kernels, [reuse], 4 * size)


def test_verify_prints_the_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path, unit_file())
    assert cli_verify.verify(folder) == 0
    text = capsys.readouterr().out
    assert rounds(text) == {"restorable": 2, "units": 2}
    assert "what it writes, 'all', lies where 'all' lies, bytes 0 to 1024 of the arena; saves 1.0 KiB" in text
    assert "what it writes, 'reuse', lies where 'all' lies, bytes 0 to 1024 of the arena" in text
    assert "proved: a restart at the first unfinished kernel is exact at each of 4 indices" in text
    assert "1 further back, 2 of 3 restarts would read overwritten data" in text
    assert cli_verify.verify(folder, as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["proved"] and document["units"] == 2 and document["snapshot_bytes"] == 1024
    verdicts = [(kernel["name"], kernel["verdict"], kernel["conditional"]) for kernel in document["kernels"]]
    assert verdicts == [
        ("fill", "restorable", True), ("in_place", "unit", True), ("reuse", "unit", True), ("last", "restorable", True),
    ]  # fmt: skip
    assert document["kernels"][2]["saved"] == [{"memory": "the arena", "begin": 0, "end": 1024}]
    assert [kernel["restart"]["until"] for kernel in document["kernels"]] == [None, 2, 3, None]


def test_verify_names_what_breaks_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = 2 * ELEMENTS
    storages = [Storage(name, size, "float32", "arena", [size], at) for name, at in (("low", 0), ("high", 256))]
    kernel = Kernel("shift", [3, 4], "unary", ["read", "write"], {"activation": "relu"})
    good = written(tmp_path, schedule([], storages, 1024))
    model = json.loads((good / "model.json").read_text())
    model["kernels"].insert(1, {"name": kernel.name, "args": kernel.args, "op": kernel.op, "access": kernel.access,
                                "attributes": kernel.attributes})  # fmt: skip
    (good / "model.json").write_text(json.dumps(model))
    sums = subprocess.run(["sha256sum", "model.json", "model.safetensors"], cwd=good, check=True, capture_output=True)
    (good / "SHA256SUMS").write_bytes(sums.stdout)
    words = (
        "kernel 'shift' (unary) is not restorable: what it writes, 'high', overlaps 'low' that it reads, "
        "bytes 256 to 512 of the arena"
    )
    assert cli_verify.verify(good) == 1
    assert words in capsys.readouterr().err
    assert cli_verify.verify(good, as_json=True) == 1
    assert words in json.loads(capsys.readouterr().err)["refused"]
    with pytest.raises(ResourceError, match="is not restorable"):
        resource.read(good)  # what the daemon and `reefctl check` do


def test_an_unknown_operator_is_taken_at_the_resources_word() -> None:
    file = schedule([Kernel("k", [2, 0], "their_kernel", ["read_write", "read"])], [], 1024)
    unit = list(restorable.instances(file))[1]
    assert (unit.verdict, unit.declared, unit.saved_bytes) == ("unit", False, 1024)
    assert unit.reason == "it reads and writes 'all'"
    with pytest.raises(restorable.Fault, match="17 arguments of an operator that is not in"):
        list(restorable.instances(schedule([Kernel("k", [2] * 17, "their_kernel")], [], 1024)))
    undeclared = schedule([Kernel("k", [2, 2], "their_kernel")], [], 1024)
    assert [instance.verdict for instance in restorable.instances(undeclared)] == ["restorable", "unit", "restorable"]


def test_a_lost_byte_is_found() -> None:
    """The proof can fail: were nothing saved, every unit would break it."""
    from dataclasses import replace

    found = list(restorable.instances(unit_file()))
    assert not any(restart.lost for restart in restorable.restarts(found))
    unsaved = [replace(instance, saved=[]) for instance in found]
    assert [bool(restart.lost) for restart in restorable.restarts(unsaved)] == [False, True, True, False]
