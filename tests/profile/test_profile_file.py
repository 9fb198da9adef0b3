# SPDX-License-Identifier: Apache-2.0
"""A profile is put into a resource's folder whole, read back as it was, and refused or called stale when it must be."""

import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from reefd import resource
from reefd.resource.profile import Padding, Segment

from .small import MACHINE, profile_of, write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "small")
    return tmp_path / "small"


def test_what_was_written_is_read(folder: Path) -> None:
    before = resource.read(folder)
    assert before.profiles == {}
    profile = profile_of(before)
    resource.write_profile(before, profile)
    after = resource.read(folder)
    assert after.profiles == {"cpu": profile}
    assert after.model == before.model
    assert after.digest == before.digest  # sessions of the same model are adopted
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["small"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS", "model.json", "model.safetensors", "profile.cpu.json",
    ]  # fmt: skip


def test_profiles_of_other_devices_stay_and_an_older_one_goes(folder: Path) -> None:
    found = resource.read(folder)
    first, second = profile_of(found), profile_of(found, device="cuda")
    newer = profile_of(found, units=[2, 4], kernels=[msgspec.structs.replace(k, time_ns=[1, 2]) for k in first.kernels])
    for profile in (first, second, newer):
        resource.write_profile(found, profile)
    assert resource.read(folder).profiles == {"cpu": newer, "cuda": second}


def test_the_weights_are_not_copied(folder: Path) -> None:
    before = (folder / "model.safetensors").stat().st_ino
    resource.write_profile(resource.read(folder), profile_of(resource.read(folder)))
    assert (folder / "model.safetensors").stat().st_ino == before


def test_a_model_that_was_compiled_meanwhile_keeps_its_folder(folder: Path) -> None:
    old = resource.read(folder)
    write_model(folder, scale=2.0)
    with pytest.raises(resource.ResourceError, match="compiled again meanwhile"):
        resource.write_profile(old, profile_of(old))
    assert resource.read(folder).profiles == {}


def test_a_damaged_profile_is_refused_with_its_name(folder: Path) -> None:
    found = resource.read(folder)
    resource.write_profile(found, profile_of(found))
    path = folder / "profile.cpu.json"
    path.write_bytes(path.read_bytes().replace(b"900", b"100"))
    with pytest.raises(resource.ResourceError, match=r"not the one in SHA256SUMS.*profile it again") as caught:
        resource.read(folder)
    assert caught.value.path.name == "profile.cpu.json"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 1}, "version 1: this reefd reads version 2"),
        ({"units": [1, 4, 2]}, "units are"),
        ({"units": [1, 2, 3]}, "do not end with all 4"),
        ({"units": []}, "units are"),
        ({"units": [2, 4]}, "has 3 times for 2"),
        ({"kernels": []}, "not the model's"),
        ({"padding": Padding(0.02, 0.0, [Segment(1, 0)])}, "does not cover"),
        ({"padding": Padding(0.02, 0.0, [])}, "does not cover"),
        ({"padding": Padding(0.02, 0.0, [Segment(2, 0), Segment(2, 1)])}, "does not cover"),
        ({"padding": Padding(0.02, 0.0, [Segment(2, 4)])}, "leaves the model nothing"),
        ({"padding": Padding(0.02, -1.0, [Segment(2, 1)])}, "loss"),
        ({"device": 5}, "device"),
    ],
)
def test_a_profile_that_contradicts_itself_or_its_model_is_refused(
    folder: Path, changes: dict[str, object], reason: str
) -> None:
    found = resource.read(folder)
    profile = profile_of(found, **(changes | {"device": "cpu"}))
    resource.write_profile(found, profile)
    document = json.loads((folder / "profile.cpu.json").read_text()) | (changes if "device" in changes else {})
    (folder / "profile.cpu.json").write_text(json.dumps(document))
    names = sorted(path.name for path in folder.glob("[mp]*"))
    sums = subprocess.run(["sha256sum", *names], cwd=folder, check=True, capture_output=True).stdout
    (folder / "SHA256SUMS").write_bytes(sums)
    with pytest.raises(resource.ResourceError, match=reason) as caught:
        resource.read(folder)
    assert caught.value.path.name == "profile.cpu.json"


def test_a_pipe_in_its_place_is_refused(folder: Path) -> None:
    found = resource.read(folder)
    resource.write_profile(found, profile_of(found))
    (folder / "profile.cpu.json").unlink()
    os.mkfifo(folder / "profile.cpu.json")
    with pytest.raises(resource.ResourceError, match="not a regular file"):
        resource.read(folder)


def test_it_is_stale_on_another_machine_and_for_another_build(folder: Path) -> None:
    digest = resource.read(folder).digest
    profile = profile_of(resource.read(folder))
    replace = msgspec.structs.replace
    assert profile.stale(digest, MACHINE) == ""
    assert profile.stale_padding(digest, MACHINE) == ""
    assert "another build" in profile.stale("0" * 64, MACHINE)
    assert "Test 2000" in profile.stale(digest, replace(MACHINE, processor="Test 2000"))
    assert "avx2" in profile.stale(digest, replace(MACHINE, kernels="avx2, reefd 1"))
    fewer = replace(MACHINE, compute_units=3)
    assert profile.stale(digest, fewer) == ""
    assert "4 compute units, here are 3" in profile.stale_padding(digest, fewer)


def test_the_bound_of_a_kernel_is_its_longest_block_or_interval(folder: Path) -> None:
    profile = profile_of(resource.read(folder))
    assert [kernel.bound_ns for kernel in profile.kernels] == [900, 450]
    longest = profile.longest()
    assert longest is not None and longest.name == "add"
