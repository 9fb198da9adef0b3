# SPDX-License-Identifier: Apache-2.0
"""A task that promises a bound is served when its models' profiles show that they keep it, and refused otherwise."""

import io
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from reefd import manifest, resource
from reefd._engine import Engine
from reefd.log import Log
from reefd.profile import machine
from reefd.resource.profile import KernelProfile, Machine, Padding, Profile, Segment
from reefd.resources import Store
from reefd.tasks import Tasks

from .small import profile_of, write_model

BE = "version: 1\ntask: t\nclass: be\nmodel: small\n"


class Served:
    """An engine, a folder with one model, and what happens to a manifest there."""

    def __init__(self, folder: Path, policy: str = "reef") -> None:
        self.folder = folder / "small"
        write_model(self.folder)
        self.engine = Engine(device="cpu", workers=2, realtime=False, policy=policy)
        self.here: Machine = machine.here(self.engine.device)
        self.log = io.StringIO()
        self.tasks = Tasks(self.engine, Store(self.engine, [folder]), Log("info", self.log))

    def measured(self, *, block_ns: int = 30_000, check_ns: int = 5_000, copy_ns: int = 0, **changes: object) -> None:
        """Puts a profile there in which the second kernel has these times."""
        found = resource.read(self.folder)
        kernels = [
            KernelProfile("add", 1, [2000, 1000], 10, 10, 0),
            KernelProfile("relu", 1, [1, 1], block_ns, check_ns, copy_ns),
        ]
        profile: Profile = profile_of(
            found, machine=self.here, units=[1, 2], kernels=kernels, padding=Padding(0.02, 0.0, [Segment(2, 0)])
        )
        resource.write_profile(found, msgspec.structs.replace(profile, **changes))

    def refusal(self, text: str) -> str:
        """Why the daemon refuses it; empty when it serves it."""
        entry, warnings = manifest.parse(text.encode(), "t.yaml")
        assert warnings == []
        self.tasks.add(Path("t.yaml"), entry)
        return self.tasks.refused.get("t", "")


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def test_a_bound_that_the_profile_keeps_is_served(served: Served) -> None:
    served.measured(block_ns=30_000)
    assert served.refusal(BE + "preempt_bound: 30us\n") == ""
    assert served.tasks.get("t") is not None


def test_a_kernel_over_the_bound_is_refused_by_name_and_figure(served: Served) -> None:
    served.measured(block_ns=2_000, check_ns=30_001)
    words = served.refusal(BE + "preempt_bound: 30us\n")
    assert "kernel relu may hold a compute unit for 31us between two check points" in words
    assert "preempt_bound 30us" in words and "raise the bound to 31us" in words and "model small" in words


def test_the_bound_includes_blocks_that_are_shielded(served: Served) -> None:
    served.measured(block_ns=90_000, check_ns=4_000)
    words = served.refusal(BE + "preempt_bound: 50us\n")
    assert "kernel relu may hold a compute unit for 90us, the longest of its blocks" in words and "4us between" in words


def test_the_bound_of_this_device_counts(served: Served) -> None:
    served.measured(block_ns=90_000)
    assert served.refusal(BE + "preempt_bound: {cuda: 50us}\n") == ""
    words = served.refusal(BE + "preempt_bound: {cpu: 50us, cuda: 200us}\n")
    assert "preempt_bound 50us" in words and "raise the bound to 90us" in words
    assert served.refusal(BE + "preempt_bound: {cpu: 90us, cuda: 50us}\n") == ""


def test_the_bound_includes_saving_and_putting_back(served: Served) -> None:
    served.measured(copy_ns=90_000)
    words = served.refusal(BE + "preempt_bound: 50us\n")
    assert "kernel relu may hold a compute unit for 90us while what it updates in place is saved or put back" in words
    assert "raise the bound to 90us" in words


@pytest.mark.parametrize("policy", ["reef", "reset", "wait", "streams", "sequential"])
def test_a_policy_that_preempts_nothing_promises_nothing(tmp_path: Path, policy: str) -> None:
    served = Served(tmp_path, policy)
    served.measured()
    words = served.refusal(BE + "preempt_bound: 50us\n")
    assert (f"under policy {policy} nothing is preempted" in words) == (policy in ("streams", "sequential"))
    assert bool(words) == (policy in ("streams", "sequential"))


def test_warn_serves_it_and_says_so(served: Served) -> None:
    served.measured(block_ns=90_000)
    assert served.refusal(BE + "preempt_bound: 50us\nenforce: warn\n") == ""
    assert served.tasks.get("t") is not None
    log = served.log.getvalue()
    assert "warning" in log and "kernel relu may hold a compute unit for 90us" in log


def test_without_a_profile_a_bound_is_no_promise(served: Served) -> None:
    words = served.refusal(BE + "preempt_bound: 1s\n")
    assert "there is no profile.cpu.json" in words and f"reefctl profile {served.folder}" in words
    assert served.refusal(BE + "preempt_bound: 1s\nenforce: warn\n") == ""
    assert "there is no profile.cpu.json" in served.log.getvalue()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": "0" * 64}, "another build of the model"),
        ({"processor": "Test 2000"}, "other processor: Test 2000, here"),
        ({"kernels": "portable, reefd 0"}, "other kernels: portable, reefd 0, here"),
        ({"blocks": 7}, "kernel add was cut into 7 blocks, now into 1"),
    ],
)
def test_a_stale_profile_is_no_promise(served: Served, change: dict[str, object], reason: str) -> None:
    if "digest" in change:
        served.measured(**change)
    elif "blocks" in change:
        kernels = [KernelProfile("add", 7, [1, 1], 1, 1, 0), KernelProfile("relu", 1, [1, 1], 1, 1, 0)]
        served.measured(kernels=kernels)
    else:
        served.measured(machine=msgspec.structs.replace(served.here, **change))
    words = served.refusal(BE + "preempt_bound: 1s\n")
    assert "profile.cpu.json is stale" in words and reason in words and "reefctl profile" in words


def test_the_bound_holds_for_another_number_of_compute_units(served: Served) -> None:
    other = msgspec.structs.replace(served.here, compute_units=3)
    served.measured(machine=other, units=[1, 3], padding=Padding(0, 0, [Segment(2, 2)]))
    assert served.refusal(BE + "preempt_bound: 100us\n") == ""
    task = served.tasks.get("t")
    assert task is not None and task.models[0].profile is None  # but times and padding do not


def test_a_damaged_profile_refuses_the_model_whatever_is_promised(served: Served) -> None:
    served.measured()
    path = served.folder / "profile.cpu.json"
    path.write_bytes(path.read_bytes().replace(b"30000", b"10000"))
    assert "profile.cpu.json: its hash is not the one in SHA256SUMS" in served.refusal(BE)


def test_a_task_without_a_bound_needs_no_profile(served: Served) -> None:
    assert served.refusal(BE) == ""
    assert served.refusal("version: 1\ntask: t\nclass: rt\nmodel: small\n") == ""


def test_measuring_again_makes_a_reload_load_it_again(served: Served) -> None:
    entry = manifest.parse(BE.encode(), "t.yaml")[0]
    served.measured(block_ns=1000)
    served.tasks.add(Path("t.yaml"), entry)
    assert served.tasks.same_engine_task(served.tasks.load(Path("t.yaml"), entry)) is not None
    served.measured(block_ns=2000)
    assert served.tasks.same_engine_task(served.tasks.load(Path("t.yaml"), entry)) is None


def test_enforce_without_a_bound_is_a_mistake() -> None:
    with pytest.raises(manifest.ManifestError, match="f:5:10: enforce: nothing to enforce"):
        manifest.parse(f"{BE}enforce: warn\n".encode(), "f")


def test_measured_by_the_command_and_checked_by_the_command(tmp_path: Path) -> None:
    write_model(tmp_path / "small")
    (tmp_path / "t.yaml").write_text(BE + "preempt_bound: 1s\n")

    def reefctl(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("reefctl"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def checked() -> subprocess.CompletedProcess[str]:
        return reefctl("check", tmp_path / "t.yaml", "--resource-dir", tmp_path)

    before = checked()
    assert before.returncode == 1 and "there is no profile.cpu.json" in before.stderr
    made = reefctl("profile", tmp_path / "small", "--seconds", 0.05, "--allow-busy")
    assert made.returncode == 0, made.stderr
    assert "can keep preempt_bound" in made.stdout
    document = json.loads((tmp_path / "small/profile.cpu.json").read_text())
    assert [kernel["name"] for kernel in document["kernels"]] == ["add", "relu"]
    assert document["padding"]["segments"][-1]["last"] == 2
    after = checked()
    assert after.returncode == 0, after.stderr
    (tmp_path / "t.yaml").write_text(BE + "preempt_bound: 1ns\n")
    tight = checked()
    assert tight.returncode == 1 and "may hold a compute unit" in tight.stderr


def test_the_plan_reaches_a_device_that_can_be_split(tmp_path: Path) -> None:
    write_model(tmp_path / "small")
    engine = Engine(device="simulated", workers=4)
    assert engine.device["split_granule"] == 1
    log = io.StringIO()
    tasks = Tasks(engine, Store(engine, [tmp_path]), Log("info", log))
    entry = manifest.parse(b"version: 1\ntask: t\nclass: rt\nmodel: small\n", "t.yaml")[0]
    assert tasks.add(Path("t.yaml"), entry) is not None
    assert "no padding, there is no profile.simulated.json" in log.getvalue()

    found = resource.read(tmp_path / "small")
    good = profile_of(found, device="simulated", machine=machine.here(engine.device))
    resource.write_profile(found, good)
    served = tasks.make(tasks.load(Path("t.yaml"), entry))
    assert served.models[0].profile == good and served.models[0].hint == ""
