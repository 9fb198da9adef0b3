# SPDX-License-Identifier: Apache-2.0
"""Manifests: what is read, and that every mistake is named with its line and column, all at once."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reefd import manifest, yamlfile
from reefd.manifest import Manifest, ManifestError
from tests import ROOT

GOOD = """\
version: 1
task: obstacle-detection
class: rt
model: person_detector
deadline: 50ms
rate: 20
slots: 4
allow: {users: [root, 1000], groups: []}
"""


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        manifest.parse(text if isinstance(text, bytes) else text.encode(), "f")
    return [str(problem) for problem in caught.value.problems]


def parsed(text: str) -> Manifest:
    return manifest.parse(text.encode(), "f")[0]


def with_line(line: str) -> str:
    """The good manifest with one key added or replaced."""
    key = line.split(":")[0]
    return "".join(f"{old}\n" for old in GOOD.splitlines() if not old.startswith(f"{key}:")) + line + "\n"


def test_the_manifest_of_the_documentation():
    found = parsed(GOOD)
    assert found.task == "obstacle-detection" and found.task_class == "rt"
    assert found.deadline == 50_000_000 and found.rate == 20 and found.slots == 4
    assert found.allow.users == ("root", 1000) and found.allow.groups == ()
    assert found.resources() == {"person_detector": "person_detector"}


def test_several_models_keep_their_order():
    text = with_line("models: {face: face_detector, mesh: face_mesh, iris: iris}").replace(
        "model: person_detector\n", ""
    )
    assert list(parsed(text).resources().items()) == [
        ("face", "face_detector"), ("mesh", "face_mesh"), ("iris", "iris"),
    ]  # fmt: skip


def test_every_error_is_reported_with_its_place():
    text = """\
version: 2
task: obstacle detection
class: fast
modle: person
deadline: 50
slots: none
allow: {users: [a b], group: []}
slots: 4
"""
    found = problems(text)
    assert [p.split(": ")[0] for p in found] == [
        "f:1:1", "f:1:10", "f:2:7", "f:3:8", "f:4:1", "f:5:11", "f:6:8", "f:7:17", "f:7:23", "f:8:1",
    ]  # fmt: skip
    assert "did you mean model?" in found[4]
    assert "did you mean groups?" in found[8]
    assert "given twice" in found[9]


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ("crc: yes", "9:6", "true or false"),
        ("crc: off", "9:6", "true or false"),
        ("task: no", "8:7", 'quote it ("no")'),
        ("slots: 010", "8:8", "leading zeros"),
        ("slots: 1_0", "8:8", "without underscores"),
        ("slots: 0b11", "8:8", "decimal"),
        ("slots: 1e1", "8:8", "whole number"),
        ("slots: 4.0", "8:8", "whole number"),
        ("slots: true", "8:8", "whole number"),
        ("slots: 0", "8:8", "from 1 to 1024"),
        ("slots: 1025", "8:8", "from 1 to 1024"),
        ("slots: " + "9" * 200, "8:8", "from 1 to 1024"),
        ("rate: .inf", "8:7", "finite"),
        ("rate: .nan", "8:7", "finite"),
        ("rate: 1e999", "8:7", "too large"),
        ("rate: 0", "8:7", "above 0"),
        ("rate: 1:30", "8:7", "base 60"),
        ("rate: !!float 3", "8:7", "tag"),
        ("deadline: 50 m", "8:11", "unit"),
        ("deadline: -5ms", "8:11", "unit"),
        ("deadline: 99999999999999h", "8:11", "unit"),
        ("deadline: [50ms]", "8:11", "a list"),
        ("memory: 64MB/s", "9:9", "64MiB"),
        ("task: a.b", "8:7", "letters"),
        ("task: ../../etc", "8:7", "letters"),
        ("task: 'a\\n'", "8:7", "letters"),
        ("task: " + "a" * 64, "8:7", "63 letters"),
        ("model: ../secret", "8:8", "resource folder"),
        ("model:", "8:7", "resource folder"),
        ("allow: [root]", "8:8", "keys and values"),
        ("allow: {users: root}", "8:16", "a list"),
        ("allow: {users: [-1]}", "8:17", "a number from 0"),
        ("weight: 5", "9:9", "best-effort"),
        ("models: {a: b}", "9:9", "keep one"),
        ("queue: drop", "9:8", "fail, block or latest"),
        ("device: tpu", "9:9", "cuda"),
        ("bounds: {end_to_end: 1s, budget: 2}", "9:34", "0 to 1"),
        ("1: 2", "9:1", "quote it"),
        ("? [a]\n: b", "9:3", "keys are words"),
        ("slots: &x 4", "8:8", "anchor"),
        ("slots: *x", "8:8", "alias"),
        ("<<: {slots: 4}", "9:1", "unknown key"),
    ],
)
def test_one_mistake_one_message(line: str, place: str, words: str):
    found = problems(with_line(line))
    assert len(found) == 1, found
    assert found[0].startswith(f"f:{place}: ") and words in found[0], found[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "f:1:1: the file is empty"),
        (b"# nothing\n", "f:1:1: the file is empty"),
        (b"version: 1\ntask: \xff\n", "f:2:7: byte 0xff is not UTF-8"),
        ("version: 1\ntask: ä\xff\n".encode("utf-16"), "not UTF-8"),
        (b"version: 1\ntask: \x07\n", "f:2:7: character U+0007"),
        (b"version: 1\ntask: [a\n", "not YAML"),
        (b"version: 1\n\ttask: a\n", "f:2:1: not YAML"),
        (b"[" * 100_000, "nested deeper"),
        (b"a: {" * 1000, "nested deeper"),
        (b"[" + b"1," * 50_000 + b"1]", "more than"),
        (b" " * 300_000, "larger than"),
        (b"--- {}\n--- {}\n", "second document"),
        (b"a: &a [x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n", "alias"),
        (b"[]", "expected keys and values"),
        (b"x", "expected keys and values"),
    ],
)
def test_what_no_person_wrote_is_refused_in_words(text: bytes, words: str):
    assert any(words in problem for problem in problems(text)), problems(text)


def test_yaml_1_2_numbers_are_read_as_such():
    assert parsed(with_line("rate: 1e3")).rate == 1000
    assert parsed(with_line("slots: 0o10")).slots == 8
    assert parsed(with_line("slots: 0x10")).slots == 16
    assert parsed(with_line('task: "no"')).task == "no"
    assert parsed(with_line("crc: true")).crc is True


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("500us", 500_000), ("50ms", 50_000_000), ("2s", 2_000_000_000), ("0.5ms", 500_000), ("1min", 60_000_000_000)],
)
def test_durations(text: str, nanoseconds: int):
    assert parsed(with_line(f"deadline: {text}")).deadline == nanoseconds


def test_sizes():
    assert parsed(with_line("memory: 64MiB")).memory == 64 << 20
    assert parsed(with_line("memory: 4096")).memory == 4096


def test_a_user_who_does_not_exist_yet_is_a_warning():
    _, warnings = manifest.parse(with_line("allow: {users: [nobody-of-that-name], groups: [0]}").encode(), "f")
    assert [str(w)[:6] for w in warnings] == ["f:8:17"] and "nobody-of-that-name" in str(warnings[0])


def test_keys_that_do_nothing_yet_are_said_to():
    _, warnings = manifest.parse(with_line("shm: sealed").encode(), "f")
    assert [str(w)[:6] for w in warnings] == ["f:9:6:"] and "not in effect" in str(warnings[0])


def test_missing_keys_are_named():
    found = problems("version: 1\n")
    assert [words for words in ("class", "model", "task") if not any(f"{words} is missing" in p for p in found)] == []


def test_a_task_in_two_files_is_refused_in_both(tmp_path: Path):
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(GOOD)
    (tmp_path / "c.yaml").write_text(GOOD.replace("obstacle", "other"))
    good, found, _ = manifest.load_files(manifest.files_of(tmp_path))
    assert [path.name for path in good] == ["c.yaml"]
    assert len(found) == 2 and "b.yaml" in str(found[0])


def test_what_is_no_file_is_refused(tmp_path: Path):
    for path, words in (
        (tmp_path, "cannot be read"),
        (tmp_path / "missing.yaml", "No such file"),
        (Path("/dev/zero"), "regular"),
    ):
        with pytest.raises(ManifestError, match=words):
            manifest.load(path)


def test_a_preempt_bound_is_one_duration_or_one_for_each_device():
    be = "version: 1\ntask: t\nclass: be\nmodel: m\n"
    assert parsed(be).preempt_bound_ns("cpu") == 0
    everywhere = parsed(be + "preempt_bound: 1.5ms\n")
    assert [everywhere.preempt_bound_ns(device) for device in ("cpu", "cuda", "hip")] == [1_500_000] * 3
    some = parsed(be + "preempt_bound:\n  cpu: 100us\n  hip: 60us\n")
    assert [some.preempt_bound_ns(device) for device in ("cpu", "cuda", "hip")] == [100_000, 0, 60_000]


@pytest.mark.parametrize(
    ("bound", "place", "words"),
    [
        ("100", "5:16", "got 100, expected a duration with its unit, for instance 100us, or one for each device"),
        ("fast", "5:16", 'got "fast", expected a duration with its unit'),
        ("[1us]", "5:16", "got a list, expected a duration with its unit"),
        ("{cpu: 100us, cdua: 1us}", "5:29", "unknown key preempt_bound.cdua: did you mean cuda?"),
        ("{cpu: 100us, cuda: soon}", "5:35", 'preempt_bound.cuda: got "soon", expected a duration with its unit'),
        ("{}", "5:16", "preempt_bound: no device in it"),
    ],
)
def test_a_preempt_bound_that_is_none_is_refused_where_it_stands(bound: str, place: str, words: str):
    text = f"version: 1\ntask: t\nclass: be\nmodel: m\npreempt_bound: {bound}\n"
    with pytest.raises(ManifestError) as error:
        manifest.parse(text.encode(), "f")
    assert str(error.value).startswith(f"f:{place}: ") and words in str(error.value)


def test_the_documentation_names_every_key():
    text = (ROOT / "docs/manifest.md").read_text()
    keys = [f.encode_name for f in msgspec.structs.fields(Manifest)]
    parts = (manifest.Bounds, manifest.Allow, manifest.PreemptBound)
    keys += [f.encode_name for cls in parts for f in msgspec.structs.fields(cls)]
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_the_examples_of_the_documentation_are_good():
    text = (ROOT / "docs/manifest.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        parsed(example)


WORDS = st.sampled_from([f.encode_name for f in msgspec.structs.fields(Manifest)] + ["x", "<<", "no", ""])
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=4),
        st.sampled_from(["50ms", "64MiB", "rt", "be", "1e3", "010", "1:30", "no", "~"]),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def refused_or_read(data: bytes) -> None:
    try:
        found, _ = manifest.parse(data, "f")
    except ManifestError as error:
        assert error.problems
        assert all(
            isinstance(p, yamlfile.Problem) and str(p).isprintable() and len(str(p)) < 1000 for p in error.problems
        )
    else:
        assert isinstance(found, Manifest) and found.resources()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_never_raise_anything_else(data: bytes):
    refused_or_read(data)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=8))
def test_random_yaml_never_raises_anything_else(values: dict):
    refused_or_read(yaml.dump(values, allow_unicode=True).encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_manifests_never_raise_anything_else(data: st.DataObject):
    text = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 5))] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b": ", b"- ", b"{", b"&a ", b"*a"])
        )
    refused_or_read(bytes(text))


def reefctl(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from reefd.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_check_exits_with_1_and_prints_all_problems(tmp_path: Path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text("version: 1\ntask: a b\nclass: slow\nmodel: m\n")
    done = reefctl("check", good, bad)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(f"{bad}:2:7: task: ")
    assert done.stderr.splitlines()[1].startswith(f"{bad}:3:8: class: ")
    assert "obstacle-detection" in done.stdout
    assert reefctl("check", good).returncode == 0
    assert reefctl("check", tmp_path).returncode == 1


def test_check_looks_at_the_resources_when_asked(tmp_path: Path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    done = reefctl("check", path, "--resource-dir", tmp_path)
    assert done.returncode == 1 and "person_detector/model.json" in done.stderr
    (tmp_path / "person_detector").mkdir()
    (tmp_path / "person_detector/model.json").write_text('{"name": ')
    done = reefctl("check", path, "--resource-dir", tmp_path)
    assert done.returncode == 1 and "person_detector" in done.stderr and "Traceback" not in done.stderr
