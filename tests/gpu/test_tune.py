# SPDX-License-Identifier: Apache-2.0
"""reefctl profile --tune: tiles measured on a device are kept in the resource and loaded again. On the stand-in driver,
whose times mean nothing: what is chosen is one of the candidates, and computes the same."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from reefd import _engine, feeds, resource
from reefd.compiler import Options, compile_model
from reefd.gpu import source, stored, tune
from reefd.gpu.conv import ConvShape, Tile
from reefd.gpu.known_tiles import known_tiles, parse_tiles
from reefd.gpu.target import TARGETS
from reefd.gpu.tiles import candidate_tiles
from reefd.resource.code import parse
from reefd.resource.load import model_spec
from reefd.resource.read import read_code
from reefd.zoo.net import Net
from tests import wait_until
from tests.tools.test_interrupted import children_in

from . import standin
from .checks import relative_error
from .devices import GPUS, REAL, compile_cached, open_device, target

SMALL = tune.Effort(first=3, second=2, chain=2, rounds=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three products of two cores: a first layer, and two layers that differ in their activation."""
    net = Net("small", 1)
    x = net.relu(net.conv(net.picture(12), 16, 3, 2, 1))
    x = net.conv(net.relu(net.conv(x, 16, 3, 1, 1)), 16, 3, 1, 1)
    net.returns(x, [1, 16, 6, 6], "y")
    base = tmp_path_factory.mktemp("tune")
    onnx.save(net.model(), base / "small.onnx")
    processor = target(GPUS[0])
    compile_model(base / "small.onnx", base / "small", options=Options(processors=[processor]), name="small")
    return base / "small"


def answer(device: _engine.GpuDevice, read: resource.Resource, processor: str) -> np.ndarray:
    spec = model_spec(read)
    spec.set_program(stored.load(read, processor))
    outputs = list(feeds.outputs(read).values())
    device.run(device.load(spec), feeds.random(read, 1), outputs)
    return outputs[0]


def chosen(read: resource.Resource, processor: str) -> dict[ConvShape, Tile]:
    code = read_code(read, processor)
    assert code is not None
    return dict(parse_tiles(code.file.tiles))


def test_tiles_are_measured_kept_and_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, processor = open_device(GPUS[0]), target(GPUS[0])
    assert isinstance(device, _engine.GpuDevice)
    read = resource.read(folder)
    default, expected = chosen(read, processor), answer(device, read, processor)
    assert all(tile == candidate_tiles(shape, TARGETS[processor])[0] for shape, tile in default.items())
    # Whatever the machine does meanwhile: the last candidates are the fastest.
    looked: dict[ConvShape, list[Tile]] = {}

    def times(self: tune.Tuner, tiles: dict[ConvShape, list[Tile]], share: float) -> dict[ConvShape, dict[Tile, float]]:
        measured = real(self, tiles, share)
        for shape, found in measured.items():
            looked.setdefault(shape, []).extend(found)
            measured[shape] = {tile: 1.0 - len(looked[shape]) - number for number, tile in enumerate(found)}
        return measured

    real = tune.Tuner._times
    monkeypatch.setattr(tune.Tuner, "_times", times)
    monkeypatch.setattr(tune.Tuner, "network_time", lambda self, read, program, code: -len(looked) - len(code.objects))
    made = tune.tune(read, tune.Tuner(device, processor, SMALL, compile_cached))
    assert made.shapes == len(looked) == 2 and made.measured == sum(map(len, looked.values()))
    assert all(len(set(tiles)) <= SMALL.first + SMALL.second + 1 for tiles in looked.values())
    resource.write_code(read, processor, made.code)

    again = resource.read(folder)
    assert again.digest == read.digest, "another choice of tiles is the same model"
    found = chosen(again, processor)
    assert found.keys() == default.keys() and found != default
    assert all(tile in [t for tiles in looked.values() for t in tiles] for tile in found.values())
    code = read_code(again, processor)
    assert code is not None and code.file.tuned_on == device.info["name"]
    assert relative_error(answer(device, again, processor), expected) < 1e-5


def test_code_of_other_kernels_is_refused_until_it_is_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same constants, same names, other headers: only the text tells."""
    processor, copy, headers = target(GPUS[0]), tmp_path / "small", tmp_path / "kernels"
    shutil.copytree(folder, copy)
    shutil.copytree(source.headers_dir(), headers)
    monkeypatch.setattr(source, "headers_dir", lambda: headers)
    gate = headers / "gate.cuh"
    text = gate.read_text()
    read = resource.read(copy)
    gate.write_text(text.replace("#pragma once", "// Another remark.\n#pragma once"))
    stored.load(read, processor)
    gate.write_text(text.replace("    u32 kernel; ", "    u32 more, kernel; "))
    assert gate.read_text() != text
    with pytest.raises(
        resource.ResourceError, match=rf"code.{processor}.json: made from the kernels of another release"
    ):
        stored.load(read, processor)

    code = read_code(read, processor)
    assert code is not None
    resource.write_code(read, processor, stored.make(stored.plan(read, code.file), compile_sources=compile_cached))
    stored.load(resource.read(copy), processor)


def test_code_files_of_another_version_are_refused_by_their_version(folder: Path) -> None:
    old = b'{"version": 1, "processor": "sm_90a", "tuned_on": "", "tiles": [], "launches": [], "kernels": []}'
    with pytest.raises(resource.ResourceError, match="version 1: this reefd reads version 2; compile it again"):
        parse(folder / "code.sm_90a.json", old)


def test_a_slower_network_keeps_its_tiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, processor = open_device(GPUS[0]), target(GPUS[0])
    assert isinstance(device, _engine.GpuDevice)
    read = resource.read(folder)
    before = chosen(read, processor)
    turns = iter((1.0, 2.0))
    monkeypatch.setattr(tune.Tuner, "network_time", lambda self, read, program, code: next(turns))
    made = tune.tune(read, tune.Tuner(device, processor, SMALL, compile_cached))
    assert dict(parse_tiles(made.code.file.tiles)) == before and (made.before_ns, made.after_ns) == (1, 2)


def compiling(process: subprocess.Popen[str], place: Path) -> bool:
    """A compiler has files there."""
    return any(place.glob("reef-compile-*/*/*"))


def starting(process: subprocess.Popen[str], place: Path) -> bool:
    """The first of the compilers' processes imports what it needs."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"reefd.gpu.compilers" in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue  # it ended meanwhile
    return False


@pytest.mark.skipif(bool(REAL), reason="the compiler for a card makes no files to wait for: unset REEF_TEST_GPU")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [starting, compiling])
def test_an_interrupted_tuning_leaves_the_resource_and_says_one_sentence(
    folder: Path,
    tmp_path: Path,
    number: signal.Signals,
    moment: Callable[[subprocess.Popen[str], Path], bool],
) -> None:
    copy, place = tmp_path / "small", tmp_path / "tmp"
    shutil.copytree(folder, copy)
    place.mkdir()
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    command = [str(Path(sys.executable).with_name("reefctl")), "profile", str(copy), "--tune", "--device", "cuda"]
    environment = os.environ | {"TMPDIR": str(place), "LD_LIBRARY_PATH": str(standin.build("cuda").parent)}
    # What a shell puts into the background ignores SIGINT, and hands that on; a command at a terminal does not.
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    signal.signal(signal.SIGINT, kept)
    try:
        wait_until(lambda: moment(process, place) or process.poll() is not None, timeout=120)
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, number)  # as a terminal does
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number, (out, errors)
    assert out == "" and errors == f"{copy}: interrupted; it keeps the tiles that it had\n"
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".small")] == []
    wait_until(lambda: not children_in(place), timeout=120)
    assert list(place.glob("reef-compile-*")) == []


@pytest.mark.parametrize("processor", [name for name in TARGETS if known_tiles(name)])
def test_tiles_that_come_with_the_package_are_among_the_candidates(processor: str) -> None:
    """Others would be passed over in silence."""
    known = known_tiles(processor)
    assert len(known) > 400
    assert [shape for shape, tile in known.items() if tile not in candidate_tiles(shape, TARGETS[processor])] == []
