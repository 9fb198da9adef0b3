# SPDX-License-Identifier: Apache-2.0
"""Bad manifests and resources: refused by file and reason, while the other tasks run."""

import numpy as np
import pytest

import libreef

from .reefd_process import ECHO, RESOURCES

IRIS = "version: 1\ntask: iris\nclass: be\nmodel: iris\n"


def served(daemon) -> None:
    with libreef.Client("echo", socket=daemon.socket) as client:
        client.infer(input=np.ones(64, np.uint8))


def test_a_bad_manifest_does_not_stop_the_others(start):
    daemon = start({"echo.yaml": ECHO, "bad.yaml": "version: 1\ntask: bad\nclass: slow\nmodle: x\n"})
    assert f"{daemon.manifest_dir}/bad.yaml:3:8: class: " in daemon.log()
    assert f"{daemon.manifest_dir}/bad.yaml:4:1: unknown key modle: did you mean model?" in daemon.log()
    served(daemon)


@pytest.mark.parametrize("damage", ["missing", "not JSON", "truncated", "flipped", "unreadable"])
def test_a_bad_resource_does_not_stop_the_others(start, directory, damage):
    folder = directory / "resource" / "iris"
    if damage != "missing":
        folder.mkdir(parents=True)
        for path in (RESOURCES / "iris").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    weights = folder / "model.safetensors"
    if damage == "not JSON":
        (folder / "model.json").write_text("{")
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "flipped":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "unreadable":
        weights.unlink()
        weights.mkdir()
    daemon = start({"echo.yaml": ECHO, "iris.yaml": IRIS}, resources=directory / "resource")
    refused = [line for line in daemon.log().splitlines() if "task-refused" in line]
    assert len(refused) == 1 and "iris.yaml" in refused[0]
    assert (str(folder) if damage != "missing" else "iris/model.json") in refused[0]
    with pytest.raises(libreef.UnknownTask, match="could not be loaded"):
        libreef.Client("iris", socket=daemon.socket)
    assert "iris" in daemon.status()["refused_tasks"]
    served(daemon)


def test_with_nothing_to_serve_it_ends_with_1(start):
    gone = "version: 1\ntask: a\nclass: rt\nmodel: nowhere\n"
    daemon = start({"bad.yaml": "version: 1\n", "gone.yaml": gone}, wait=False)
    assert daemon.ended() == 1 and daemon.shm() == []
    assert "gone.yaml" in daemon.log() and "nowhere/model.json" in daemon.log() and "bad.yaml:1:1" in daemon.log()


def test_strict_refuses_to_start_with_a_bad_one(start):
    daemon = start({"echo.yaml": ECHO, "bad.yaml": "version: 1\n"}, options=("--strict",), wait=False)
    assert daemon.ended() == 1 and "strict" in daemon.log() and daemon.shm() == []


def test_no_manifest_directory_is_an_error_an_empty_one_is_not(start):
    daemon = start({})
    assert "has no *.yaml" in daemon.log()
    assert daemon.stop() == 0
    daemon.manifest_dir.rmdir()
    daemon.start(wait=False)
    assert daemon.ended() == 1 and "--manifest-dir" in daemon.log()


def test_memory_is_a_limit(start):
    daemon = start({"echo.yaml": ECHO.replace("echo:64", "echo:1000000") + "memory: 1MiB\n"}, wait=False)
    assert daemon.ended() == 1 and "memory:" in daemon.log()


def test_a_task_for_another_device_is_refused(start):
    daemon = start({"echo.yaml": ECHO, "gpu.yaml": ECHO.replace("task: echo", "task: gpu") + "device: cuda\n"})
    assert "device cuda is not what this daemon runs on (cpu)" in daemon.log()
    served(daemon)


def test_all_reasons_are_logged_for_a_bad_configuration(start, directory):
    file = directory / "reefd.yaml"
    file.write_text("workers: many\nolicy: reef\n")
    daemon = start(options=("--config", file), wait=False)
    assert daemon.ended() == 1
    assert f"{file}:1:10: workers: " in daemon.log() and "did you mean policy?" in daemon.log()
