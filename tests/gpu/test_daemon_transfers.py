# SPDX-License-Identifier: Apache-2.0
"""A whole daemon whose best-effort tensors take several pieces: all that can happen while one of them is in flight.

The stand-in driver holds copies while a file exists, so that "in flight" is a state and not a moment. It ends the
daemon where memory is unregistered while a copy uses it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from libreef import Cancelled, Client, DaemonGone, DeadlineExceeded
from libreef.loan import Future, Loan
from reefd.compiler import Options, compile_model
from tests import wait_until

from .test_daemon import Daemon

MODEL = "pair"
ELEMENTS = 150_000  # 600 kB for each of two inputs and two outputs: ten pieces of registered memory, more of staged
PATIENCE = 60
DIRECTIONS = ["TO_DEVICE", "TO_HOST"]


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """(a, b) -> a + b, a * b."""
    folder = tmp_path_factory.mktemp("resource")

    def tensor(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [ELEMENTS])

    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    graph = helper.make_graph(nodes, MODEL, [tensor("a"), tensor("b")], [tensor("sum"), tensor("product")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "pair.onnx")
    compile_model(folder / "pair.onnx", folder / MODEL, options=Options(processors=["host"]), name=MODEL)
    return folder


class Held:
    """A daemon whose copies in one direction wait from hold() to go()."""

    def __init__(self, folder: Path, resources: Path, kind: str) -> None:
        self.folder, self.resources, self.kind = folder, resources, kind
        self.environment = {f"REEF_STANDIN_HOLD_{direction}": str(folder / direction) for direction in DIRECTIONS}
        self.daemons: list[Daemon] = []
        self.start()

    def start(self) -> None:
        self.daemon = Daemon(self.folder, self.resources, self.kind, MODEL, **self.environment)
        self.daemons.append(self.daemon)
        end = time.monotonic() + PATIENCE  # the log may have the words of the daemon before
        while self.daemon.log.read_text().count("tasks on") < len(self.daemons):
            assert self.daemon.process.poll() is None and time.monotonic() < end, self.daemon.log.read_text()
            time.sleep(0.01)

    def hold(self, direction: str) -> None:
        """While no copy is in flight."""
        (self.folder / f"{direction}.waiting").unlink(missing_ok=True)
        (self.folder / direction).touch()

    def is_waiting(self, direction: str) -> bool:
        return (self.folder / f"{direction}.waiting").exists()

    def waiting(self, direction: str) -> None:
        wait_until(lambda: self.is_waiting(direction))

    def go(self) -> None:
        for direction in DIRECTIONS:
            (self.folder / direction).unlink(missing_ok=True)

    def regions(self) -> list[Path]:
        return sorted(Path("/dev/shm").glob(f"reef.gpu-{os.getpid()}.*.[cd]"))


@pytest.fixture(params=["cuda", "hip"])
def held(
    request: pytest.FixtureRequest, tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Held]:
    made = Held(tmp_path, resources, request.param)
    monkeypatch.setenv("REEF_SOCKET", str(made.daemon.socket))
    yield made
    made.go()
    for daemon in made.daemons:
        daemon.stop()
    assert made.daemon.process.returncode == 0, made.daemon.log.read_text()
    assert made.regions() == []


def values(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.uniform(0.5, 1.5, ELEMENTS).astype(np.float32) for name in ("a", "b")}


def fill(loan: Loan, seed: int) -> None:
    for name, array in values(seed).items():
        loan.inputs[name][:] = array


def right(outputs: object, seed: int) -> bool:
    a, b = values(seed).values()
    expected = {"sum": a + b, "product": a * b}
    return all(np.array_equal(np.asarray(outputs[name].array), array) for name, array in expected.items())  # type: ignore[index]


def begun(client: Client, seed: int, **options: float) -> tuple[Loan, Future]:
    loan = client.loan()
    fill(loan, seed)
    return loan, loan.submit(**options)


def answers(client: Client, seed: int) -> bool:
    with client.loan() as loan:
        fill(loan, seed)
        return right(loan.infer(timeout=PATIENCE), seed)


def test_answers(held: Held) -> None:
    for task in ("rt", "be"):
        with Client(task, timeout=PATIENCE) as client:
            assert all(answers(client, seed) for seed in range(3))
            pending = [begun(client, seed) for seed in (7, 8)]
            for seed, (loan, future) in zip((7, 8), pending, strict=True):
                assert right(future.result(PATIENCE), seed)
                loan.release()


def ends_with(error: type[Exception], held: Held, client: Client, loan: Loan, future: Future) -> None:
    """Once the copies go on; and the client is served as before."""
    held.go()
    with pytest.raises(error):
        future.result(PATIENCE)
    loan.release()
    assert answers(client, 2)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_cancelled(held: Held, direction: str) -> None:
    with Client("be", timeout=PATIENCE) as client:
        held.hold(direction)
        loan, future = begun(client, 1)
        held.waiting(direction)
        assert future.cancel(PATIENCE)
        assert not future.done()  # its memory is still being read, or written
        ends_with(Cancelled, held, client, loan, future)


def test_a_deadline_passes_while_inputs_come(held: Held) -> None:
    with Client("be", timeout=PATIENCE) as client:
        held.hold("TO_DEVICE")
        loan, future = begun(client, 1, deadline=0.2)
        time.sleep(0.4)
        ends_with(DeadlineExceeded, held, client, loan, future)


def test_a_deadline_passes_while_outputs_go(held: Held) -> None:
    with Client("be", timeout=PATIENCE) as client:
        for seconds in (1, 3, 9, 27):  # on a busy machine the kernels take their time
            held.hold("TO_HOST")
            loan, future = begun(client, 1, deadline=seconds)
            passed = time.monotonic() + seconds
            while time.monotonic() < passed or not (future.done() or held.is_waiting("TO_HOST")):
                client.poll()
                time.sleep(0.01)
            early = not future.done()
            held.go()
            if early:
                assert right(future.result(PATIENCE), 1) and future.completion is not None and future.completion.late
            loan.release()
            if early:
                return
        pytest.fail("the kernels were never done within the deadline")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_its_client_is_killed(held: Held, direction: str) -> None:
    """Its memory stays until the pieces have landed; then nothing of it is left, and others were served meanwhile."""
    held.hold(direction)
    code = (
        "import sys, time; from libreef import Client; c = Client('be'); loan = c.loan(); loan.submit();"
        " print('submitted', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline()
            held.waiting(direction)
            mine = held.regions()
            assert len(mine) == 2
        finally:
            child.kill()
    with Client("be", timeout=PATIENCE) as client:
        assert set(mine) < set(held.regions())
        loan, future = begun(client, 3)
        held.go()
        assert right(future.result(PATIENCE), 3)
        loan.release()
        wait_until(lambda: not set(mine) & set(held.regions()))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_daemon_is_stopped(held: Held, direction: str) -> None:
    """What is in flight when it is asked to stop has the time of grace like everything else."""
    with Client("be", timeout=PATIENCE) as client:
        held.hold(direction)
        loan, future = begun(client, 1)
        held.waiting(direction)
        held.daemon.process.terminate()
        held.daemon.wait_for("asked to stop")
        held.go()
        try:
            assert right(future.result(PATIENCE), 1)
        except DaemonGone:
            pytest.fail("not finished within the time of grace")
        finally:
            loan.release()
        assert held.daemon.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_daemon_is_stopped_for_a_restart(held: Held, direction: str) -> None:
    """The next one answers what the first one could not, once."""
    with Client("be", timeout=PATIENCE, reconnect=True) as client:
        held.hold(direction)
        loan, future = begun(client, 1)
        held.waiting(direction)
        held.daemon.process.send_signal(signal.SIGUSR2)
        held.daemon.wait_for("asked to stop")
        time.sleep(0.5)  # beyond the time of grace
        held.go()
        assert held.daemon.process.wait(PATIENCE) == 0
        held.start()
        assert right(future.result(PATIENCE), 1)
        loan.release()
        assert answers(client, 2)


def test_refused_registration_is_said_once(tmp_path: Path, resources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon(tmp_path, resources, "cuda", MODEL, REEF_STANDIN_NO_REGISTER="1").ready()
    try:
        monkeypatch.setenv("REEF_SOCKET", str(daemon.socket))
        for task in ("be", "be", "rt"):
            with Client(task, timeout=PATIENCE) as client:
                assert answers(client, 1) and answers(client, 2)
    finally:
        daemon.stop()
    lines = [line for line in daemon.log.read_text().splitlines() if "page-locked" in line]
    assert len(lines) == 1 and "CUDA_ERROR (801)" in lines[0] and "task=be" in lines[0].replace('"', ""), lines


def test_nothing_is_said_where_nothing_was_refused(tmp_path: Path, resources: Path) -> None:
    for kind in ("cuda", "hip"):
        daemon = Daemon(tmp_path, resources, kind, MODEL).ready()
        try:
            with Client("be", timeout=PATIENCE, socket=str(daemon.socket)) as client:
                assert answers(client, 1)
        finally:
            daemon.stop()
        assert "page-locked" not in daemon.log.read_text()
