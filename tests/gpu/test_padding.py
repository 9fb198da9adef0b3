# SPDX-License-Identifier: Apache-2.0
"""A padding plan for a GPU: `reefctl profile --device` writes it, only that processor and code use it, and then
best-effort work goes on beside real-time work, each on its part of the device. On the stand-in drivers."""

import ctypes
import io
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from reefd import _engine, feeds, manifest, resource
from reefd.cli_profile import profile as profile_command
from reefd.compiler import Options, compile_model
from reefd.gpu import stored
from reefd.inspect.report import inspect
from reefd.log import Log
from reefd.profile import gpu
from reefd.resource.load import model_spec
from reefd.resource.profile import Machine, Padding, Profile, Segment
from reefd.resource.read import read_code
from reefd.resources import Store
from reefd.tasks import Tasks
from reefd.zoo.net import Net
from tests import until_some, wait_until
from tests.engine.regions import Client, open_session

from . import standin
from .devices import REAL, compile_cached, open_device

pytestmark = pytest.mark.skipif(bool(REAL), reason="a card does not say where kernels ran: unset REEF_TEST_GPU")
KINDS = ["cuda", "hip"]
UNITS = {"cuda": 4, "hip": 12}
GRANULE = {"cuda": 1, "hip": 4}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = Net("small", 1)
    x = net.picture(12)
    for channels in (8, 16, 16, 16, 16, 16):
        x = net.relu(net.conv(x, channels, 3, 1, 1))
    net.returns(x, [1, 16, 12, 12], "y")
    base = tmp_path_factory.mktemp("padding")
    onnx.save(net.model(), base / "small.onnx")
    compile_model(base / "small.onnx", base / "small", options=Options(processors=["host"]), name="small")
    return base / "small"


@pytest.fixture
def folder(compiled: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", str(compiled), str(tmp_path / "small")], check=True)
    return tmp_path / "small"


def launches(found: resource.Resource) -> int:
    code = read_code(found, "host")
    assert code is not None
    return len(code.file.launches)


def planned(folder: Path, kind: str, units: int) -> Profile:
    """A profile of this folder on the stand-in, with a plan of so many units."""
    found = resource.read(folder)
    total = UNITS[kind]
    machine = Machine("stand-in", f"{standin.SONAMES[kind]}, reefd {gpu.machine.__version__}", total)
    return Profile(
        2, kind, found.digest, machine, [total - GRANULE[kind], total], [],
        Padding(0.02, 0.01, [Segment(launches(found), units)]), network_ns=[101, 100], code=found.code_sum(""),
    )  # fmt: skip


# ---------------------------------------------------------------- the plan


def turns(*times: float) -> list[float]:
    """Clocks that change from turn to turn."""
    return [time * clock for time, clock in zip(times * 5, (1.0, 1.3, 0.8, 1.1, 2.0), strict=False)]


def test_the_plan_is_the_largest_split_within_the_bound() -> None:
    measured = {0: turns(100.0), 8: turns(100.5), 16: turns(101.9), 24: turns(102.1), 32: turns(110.0)}
    assert gpu.plan(measured, 0.02, 7) == Padding(0.02, 0.019, [Segment(7, 16)])
    assert gpu.plan(measured, 0.001, 7) == Padding(0.001, 0.0, [Segment(7, 0)])
    assert gpu.plan(measured, 0.2, 7) == Padding(0.2, 0.1, [Segment(7, 32)])


def test_grids_that_fit_again_count() -> None:
    """Less is lost with 16 than with 8: rounds of blocks."""
    assert gpu.plan({0: turns(100.0), 8: turns(103.0), 16: turns(101.0)}, 0.02, 7).segments == [Segment(7, 16)]


def test_a_split_that_gains_less_than_moving_there_and_back_costs_is_not_planned() -> None:
    """MobileNet v2 on an H200, where its plan was worse than none; and a model that is longer by a factor of four."""
    us = {0: 148.76, 8: 150.41, 16: 151.19, 24: 151.99, 32: 155.03}
    cost = 132 * gpu.HANDOVER_NS
    assert gpu.plan({split: turns(1e3 * time) for split, time in us.items()}, 0.02, 7, cost).segments[0].units == 0
    assert gpu.plan({split: turns(4e3 * time) for split, time in us.items()}, 0.02, 7, cost).segments[0].units == 16


def test_a_device_without_splits_has_a_plan_of_nothing() -> None:
    assert gpu.plan({0: turns(100.0)}, 0.02, 7) == Padding(0.02, 0.0, [Segment(7, 0)])


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_writes_it_and_inspect_shows_it(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.load(kind)
    looked: list[int] = []

    def plan(measured: dict[int, list[float]], bound: float, count: int, cost: float) -> Padding:
        """Whatever the machine does meanwhile."""
        looked.extend(measured)
        assert all(len(each) == len(measured[0]) >= 5 and min(each) > 0 for each in measured.values())
        assert cost == UNITS[kind] * gpu.HANDOVER_NS
        return real({split: [1e6 + split] * 5 for split in measured}, bound, count, cost)

    real = gpu.plan
    monkeypatch.setattr(gpu, "plan", plan)
    assert profile_command(folder, device=kind, seconds=0.01, allow_busy=True) == 0  # type: ignore[arg-type]
    units, granule = UNITS[kind], GRANULE[kind]
    assert looked == list(range(0, units // 2 + 1, granule))
    assert f"best-effort work may use {looked[-1]} of {units} compute units" in capsys.readouterr().out

    found = resource.read(folder)
    made = found.profiles[kind]
    assert made.machine.processor == "stand-in" and made.machine.compute_units == units
    assert made.units == [units - split for split in reversed(looked)] and len(made.network_ns) == len(looked)
    assert made.padding.segments == [Segment(launches(found), looked[-1])] and made.padding.bound == 0.02
    (shown,) = inspect(found).padding
    assert shown.device == kind and shown.segments == made.padding.segments and "may use" in shown.words


def test_a_resource_without_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    standin.load("cuda")
    net = Net("bare", 1)
    net.returns(net.relu(net.picture(12)), [1, 3, 12, 12], "y")
    onnx.save(net.model(), tmp_path / "bare.onnx")
    compile_model(tmp_path / "bare.onnx", tmp_path / "bare", name="bare")
    assert profile_command(tmp_path / "bare", device="cuda", allow_busy=True) == 1
    assert "it has no GPU code" in capsys.readouterr().err
    assert not list((tmp_path / "bare").glob("profile.*"))


# ---------------------------------------------------------------- where it holds


class Served:
    """An engine on a stand-in, and the tasks of one folder of resources."""

    def __init__(self, folder: Path, kind: str) -> None:
        standin.load(kind)
        self.engine = _engine.Engine(device=kind, realtime=False, stuck_ns=60_000_000_000)
        self.log = io.StringIO()
        self.tasks = Tasks(self.engine, Store(self.engine, [folder.parent]), Log("info", self.log))

    def add(self, text: str) -> int:
        entry, warnings = manifest.parse(text.encode(), "t.yaml")
        assert warnings == []
        self.tasks.add(Path("t.yaml"), entry)
        task = self.tasks.get(entry.task)
        assert task is not None, self.tasks.refused
        return task.number


RT = "version: 1\ntask: rt\nclass: rt\nmodel: small\nslots: 2\n"
BE = "version: 1\ntask: be\nclass: be\nmodel: small\nslots: 2\n"


def other_processor(made: Profile) -> Profile:
    return msgspec.structs.replace(made, machine=msgspec.structs.replace(made.machine, processor="another card"))


def other_count(made: Profile) -> Profile:
    return msgspec.structs.replace(made, machine=msgspec.structs.replace(made.machine, compute_units=8), units=[7, 8])


def other_code(made: Profile) -> Profile:
    return msgspec.structs.replace(made, code="0" * 64)


def other_launches(made: Profile) -> Profile:
    return msgspec.structs.replace(made, padding=Padding(0.02, 0.0, [Segment(3, 1)]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_processor, "other processor: another card, here stand-in"),
        (other_count, "measured with 8 compute units, here are 4"),
        (other_code, "measured with other code than the folder has now"),
        (other_launches, "its plan does not end with the last of"),
    ],
)
def test_a_plan_of_something_else_is_not_used(folder: Path, change: Callable[[Profile], Profile], reason: str) -> None:
    resource.write_profile(resource.read(folder), change(planned(folder, "cuda", 1)))
    served = Served(folder, "cuda")
    served.add(RT)
    log = served.log.getvalue()
    assert "no padding, profile.cuda.json is stale" in log and reason in log
    assert f"`reefctl profile {folder} --device cuda` measures it" in log


def test_a_plan_that_holds_is_taken_without_a_word(folder: Path) -> None:
    resource.write_profile(resource.read(folder), planned(folder, "cuda", 1))
    served = Served(folder, "cuda")
    served.add(RT)
    assert "no padding" not in served.log.getvalue()


def test_code_that_was_tuned_afterwards_makes_it_stale(folder: Path) -> None:
    resource.write_profile(resource.read(folder), planned(folder, "cuda", 1))
    found = resource.read(folder)
    code = read_code(found, "host")
    assert code is not None
    remade = stored.make(stored.plan(found, code.file), tuned_on="stand-in", compile_sources=compile_cached)
    resource.write_code(found, "host", remade)
    assert resource.read(folder).digest == found.digest
    served = Served(folder, "cuda")
    served.add(RT)
    assert "measured with other code" in served.log.getvalue()


def test_nothing_is_promised_about_blocks_that_nobody_timed(folder: Path) -> None:
    served = Served(folder, "cuda")
    entry, _ = manifest.parse((BE + "preempt_bound: 100us\n").encode(), "t.yaml")
    for with_profile in (False, True):
        if with_profile:
            resource.write_profile(resource.read(folder), planned(folder, "cuda", 1))
        served.tasks.add(Path("t.yaml"), entry)
        assert "the blocks of GPU kernels are not timed; leave the bound out for cuda" in served.tasks.refused["be"]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("network_ns", [1], "1 times of the whole model for 2"),
        ("padding", {"bound": 0.02, "loss": 0.0, "segments": [{"last": 7, "units": 4}]}, "leaves the model nothing"),
        ("padding", {"bound": 0.02, "loss": 0.0, "segments": [{"last": 7, "units": -1}]}, "units"),
    ],
)
def test_one_that_contradicts_itself_is_refused(folder: Path, key: str, value: object, reason: str) -> None:
    resource.write_profile(resource.read(folder), planned(folder, "cuda", 1))
    path = folder / "profile.cuda.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    names = sorted(each.name for each in folder.glob("[cmp]*"))
    sums = subprocess.run(["sha256sum", *names], cwd=folder, check=True, capture_output=True).stdout
    (folder / "SHA256SUMS").write_bytes(sums)
    with pytest.raises(resource.ResourceError, match=reason):
        resource.read(folder)


# ---------------------------------------------------------------- used


@pytest.fixture
def serving(folder: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    kind, units = request.param
    resource.write_profile(resource.read(folder), planned(folder, kind, units))
    served = Served(folder, kind)
    yield served
    served.engine.stop(grace_ns=0, keep_sessions=False)


def answer(folder: Path, kind: str) -> tuple[bytes, bytes]:
    """A seeded input, and what the model makes of it on the whole device."""
    device, found = open_device(kind), resource.read(folder)
    spec = model_spec(found)
    spec.set_program(stored.load(found, ""))
    outputs = list(feeds.outputs(found).values())
    given = feeds.random(found, 1)
    device.run(device.load(spec), given, outputs)
    assert all(np.isfinite(output).all() and output.any() for output in outputs)
    return given[0].tobytes(), outputs[0].tobytes()


def grids_on(kind: str) -> Callable[[int], int]:
    library = standin.load(kind)
    library.reef_standin_grids_on.restype = ctypes.c_uint64
    return lambda units: int(library.reef_standin_grids_on(units))


@pytest.mark.parametrize(
    ("serving", "kind", "aside"),
    [(("cuda", 1), "cuda", 1), (("hip", 4), "hip", 4), (("cuda", 0), "cuda", 0)],
    indirect=["serving"],
)
def test_best_effort_goes_on_beside_real_time_on_its_units(
    serving: Served, kind: str, aside: int, folder: Path
) -> None:
    given, expected = answer(folder, kind)
    count, units = launches(resource.read(folder)), UNITS[kind]
    grids = grids_on(kind)
    serving.engine.start()
    rt = open_session(serving.engine, serving.add(RT), 1)
    be = open_session(serving.engine, serving.add(BE), 2)
    for client in (rt, be):
        for slot in range(2):
            client.input(slot)[: len(given)] = given

    def take(client: Client) -> list[int]:
        """Of the completions that are there: their slots, answers checked."""
        done = client.take()
        for each in done:
            assert each.status == 0 and client.output(each.slot)[: len(expected)] == expected
        return [each.slot for each in done]

    def beside() -> int:
        """Best-effort grids on their part of the device during one real-time request."""
        rest_before, aside_before = grids(units - aside), grids(aside)
        rt.submit(0)
        answered = 0
        end = time.monotonic() + 60
        while not answered:
            assert time.monotonic() < end
            for slot in take(be):
                be.submit(slot)
            answered = len(take(rt))
            time.sleep(1e-4)
        if aside:  # all of it, and nothing else, runs on the others
            assert grids(units - aside) - rest_before == count
        return grids(aside) - aside_before

    be.submit(0)
    be.submit(1)
    wait_until(lambda: grids(units) > 0)
    if aside:
        until_some(beside, "best-effort grids beside real-time work")
    else:
        alone = [grids(split) for split in range(1, units)]
        for _ in range(5):
            beside()
        assert [grids(split) for split in range(1, units)] == alone
