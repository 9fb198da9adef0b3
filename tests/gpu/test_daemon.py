# SPDX-License-Identifier: Apache-2.0
"""A whole daemon on a GPU's stand-in driver: answers, what it refuses, and how it survives a fault."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from libreef import Client
from reefd import _engine, resource
from reefd.compiler import Options, compile_model
from reefd.resource.load import model_spec
from tests import ROOT

from . import standin

MODEL = "iris"


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """iris, once with code for the host and once without any."""
    folder = tmp_path_factory.mktemp("resource")
    for name, processors in ((MODEL, ["host"]), ("bare", [])):
        options = Options(processors=processors)
        compile_model(ROOT / f"resource/onnx/{MODEL}.onnx", folder / name, options=options, name=name)
    return folder


class Daemon:
    def __init__(self, folder: Path, resources: Path, kind: str, model: str, **environment: str) -> None:
        (folder / "tasks.d").mkdir(exist_ok=True)
        (folder / "tasks.d/rt.yaml").write_text(
            f"version: 1\ntask: rt\nclass: rt\nmodel: {model}\nslots: 2\ndevice: {kind}\n"
        )
        (folder / "tasks.d/be.yaml").write_text(f"version: 1\ntask: be\nclass: be\nmodel: {model}\nslots: 2\n")
        # The driver's kernels run on this machine's processors: on a busy one they are slow, not stuck.
        (folder / "reefd.yaml").write_text("device_timeout: 60 s\ngrace: 60 s\n")
        library = str(standin.build(kind).parent)
        command = [sys.executable, "-m", "reefd", "--config", str(folder / "reefd.yaml")]
        command += ["--instance", f"gpu-{os.getpid()}", "--runtime-dir", str(folder)]
        command += ["--device", kind, "--manifest-dir", str(folder / "tasks.d"), "--resource-dir", str(resources)]
        self.log = folder / "log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stderr=log, env=os.environ | {"LD_LIBRARY_PATH": library, **environment}
            )
        self.socket = folder / "reef.sock"

    def ready(self) -> "Daemon":
        self.wait_for("tasks on")
        assert self.process.poll() is None, self.log.read_text()
        return self

    def wait_for(self, words: str) -> str:
        """The log, once it has these words or the daemon ended."""
        end = time.monotonic() + 60
        while words not in self.log.read_text() and time.monotonic() < end and self.process.poll() is None:
            time.sleep(0.02)
        return self.log.read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Daemon]]:
    daemons: list[Daemon] = []
    yield daemons
    for daemon in daemons:
        daemon.stop()


def expected(resources: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The CPU device's answer to seeded inputs."""
    read = resource.read(resources / MODEL)
    generator = np.random.default_rng(4)
    inputs = [generator.random(read.model.storage[i].shape, np.float32) for i in read.model.inputs]
    outputs = [np.empty(read.model.storage[i].shape, np.float32) for i in read.model.outputs]
    _engine.run_model(model_spec(read), inputs, outputs)
    return inputs, outputs


def infer(client: Client, inputs: list[np.ndarray]) -> list[np.ndarray]:
    with client.loan() as loan:
        for tensor, values in zip(loan.inputs.values(), inputs, strict=True):
            tensor[:] = values
        return [np.array(output.array) for output in loan.infer(timeout=60.0).values()]


@pytest.mark.parametrize(("kind", "options"), [("cuda", {}), ("cuda", {"REEF_STANDIN_NO_REGISTER": "1"}), ("hip", {})])
def test_answers(
    kind: str,
    options: dict[str, str],
    tmp_path: Path,
    resources: Path,
    started: list[Daemon],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, outputs = expected(resources)
    started.append(Daemon(tmp_path, resources, kind, MODEL, **options).ready())
    monkeypatch.setenv("REEF_SOCKET", str(started[0].socket))
    for task in ("rt", "be"):
        with Client(task, timeout=20.0) as client:
            for _ in range(2):
                for ours, theirs in zip(infer(client, inputs), outputs, strict=True):
                    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_a_model_without_code_for_the_device_is_refused_by_name(
    tmp_path: Path, resources: Path, started: list[Daemon]
) -> None:
    started.append(Daemon(tmp_path, resources, "cuda", "bare"))
    text = started[0].wait_for("refused")
    assert "bare" in text and "it has no GPU code" in text and "reefctl compile --target" in text


def test_out_of_device_memory_names_the_sizes(tmp_path: Path, resources: Path, started: list[Daemon]) -> None:
    started.append(Daemon(tmp_path, resources, "cuda", MODEL, REEF_STANDIN_MEMORY=str(3 << 20)))
    text = started[0].wait_for("refused")
    assert "of device memory" in text and "MiB are free" in text


def test_a_fault_ends_the_daemon_and_the_next_one_answers_the_guilty_request(
    tmp_path: Path, resources: Path, started: list[Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, outputs = expected(resources)
    started.append(Daemon(tmp_path, resources, "cuda", MODEL, REEF_STANDIN_FAULT="60").ready())
    monkeypatch.setenv("REEF_SOCKET", str(started[0].socket))
    with Client("rt", timeout=20.0, reconnect=True) as client:
        loan = client.loan()
        for tensor, values in zip(loan.inputs.values(), inputs, strict=True):
            tensor[:] = values
        pending = loan.submit()
        assert started[0].process.wait(20) == 70
        assert re.search(r"the driver reports a fault: \w.*: \w+ \(700\)", started[0].log.read_text())
        started.append(Daemon(tmp_path, resources, "cuda", MODEL).ready())
        with pytest.raises(Exception, match="the device failed while this request ran"):
            pending.result(timeout=20.0)
        loan.release()
        for ours, theirs in zip(infer(client, inputs), outputs, strict=True):
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
