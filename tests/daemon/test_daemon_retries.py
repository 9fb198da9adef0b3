# SPDX-License-Identifier: Apache-2.0
"""Daemons die with several requests on the device: the next one runs each of them alone, and the guilty one is found.

The daemon is the real one; one kernel of it waits where a test wants it to (held_sin.c), so that who is on the device
when it dies is not left to chance.
"""

import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import libreef
from tests.sin_model import SHAPE, compile_sin

from .reefd_process import PATIENCE, Reefd
from .test_daemon_kills import configured

HELD, CRASHES = 1e6, 2e6  # held_sin.c
NEIGHBOUR, GUILTY, REAL_TIME, LATER = range(4)
CLASSES = {NEIGHBOUR: "be", GUILTY: "be", REAL_TIME: "rt", LATER: "rt"}
A_WHILE = 0.3  # in which what must not happen would happen


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resource")
    compile_sin(folder / "sin")
    return folder


class Held:
    """The files that say who has begun and may go on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "held"
        self.folder.mkdir()
        library = folder / "held_sin.so"
        source = Path(__file__).with_name("held_sin.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
        monkeypatch.setenv("REEF_HELD", str(self.folder))
        monkeypatch.setenv("LD_PRELOAD", str(library))

    def begun(self, daemon: Reefd) -> list[int]:
        """Who has begun in this daemon, in that order."""
        file = self.folder / "begun"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [int(who) for who, pid in lines if daemon.process is not None and int(pid) == daemon.process.pid]

    def go_on(self, daemon: Reefd, who: int) -> None:
        assert daemon.process is not None
        (self.folder / f"go.{who}.{daemon.process.pid}").touch()

    def go_on_all(self) -> None:
        (self.folder / "open").touch()


def infer(client: libreef.Client, first: float) -> bool:
    """One request; whether its answer is right, to the last element."""
    x = np.linspace(-3, 3, SHAPE[1], dtype=np.float32).reshape(SHAPE)
    x[0, 0] = first
    y = client.infer(x=x, timeout=PATIENCE)["y"]
    return bool(np.allclose(y, np.sin(x.astype(np.float64)), atol=1e-6))


@pytest.mark.parametrize("how", ["crashed", "killed"])
def test_each_runs_alone_after_a_death_and_the_second_one_is_the_guilty_ones(
    start: Callable[..., Reefd], directory: Path, resources: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Crashed by its kernel twice, it is rejected; killed from outside, nobody is. The others are answered right."""
    held = Held(directory, monkeypatch)
    manifests = {
        f"{who}.yaml": f"version: 1\ntask: task-{who}\nclass: {task_class}\nmodel: sin\nslots: 2\n"
        for who, task_class in CLASSES.items()
    }
    options = (*configured(directory), "--workers", 4)
    daemon = start(manifests, resources=resources, options=options)
    with ExitStack() as stack:
        stack.callback(held.go_on_all)  # whatever happens: no thread here waits for ever
        pool = stack.enter_context(ThreadPoolExecutor(8))
        clients = [
            stack.enter_context(libreef.Client(f"task-{who}", socket=daemon.socket, timeout=PATIENCE))
            for who in CLASSES
        ]
        futures: dict[int, Future[bool]] = {}

        def submit(who: int, first: float) -> Future[bool]:
            futures[who] = pool.submit(infer, clients[who], first)
            return futures[who]

        def die() -> None:
            if how == "crashed":
                held.go_on(daemon, GUILTY)
                assert daemon.ended() < 0
            else:
                daemon.kill()

        # Three at once on the first device.
        guilty = CRASHES if how == "crashed" else HELD
        for who, first in ((NEIGHBOUR, HELD), (GUILTY, guilty), (REAL_TIME, HELD)):
            submit(who, first + who)
            daemon.wait_for(lambda who=who: who in held.begun(daemon))
        die()

        # On the second one after the other, in the order of their acceptance.
        daemon.start()
        daemon.wait_for(lambda: held.begun(daemon) == [NEIGHBOUR])
        time.sleep(A_WHILE)
        assert held.begun(daemon) == [NEIGHBOUR]
        first = futures[NEIGHBOUR]
        held.go_on(daemon, NEIGHBOUR)
        assert first.result(PATIENCE)
        daemon.wait_for(lambda: held.begun(daemon) == [NEIGHBOUR, GUILTY])
        # Best effort waits for it, real time does not.
        submit(NEIGHBOUR, HELD + NEIGHBOUR)
        submit(LATER, HELD + LATER)
        daemon.wait_for(lambda: LATER in held.begun(daemon))
        time.sleep(A_WHILE)
        assert held.begun(daemon) == [NEIGHBOUR, GUILTY, LATER]
        die()

        # The third has no reason to run the guilty one.
        held.go_on_all()
        daemon.start()
        for who in (NEIGHBOUR, REAL_TIME, LATER):
            assert futures[who].result(PATIENCE), who
        if how == "crashed":
            with pytest.raises(libreef.ReefError) as caught:
                futures[GUILTY].result(PATIENCE)
            assert isinstance(caught.value, libreef.DeviceFailed)
            assert GUILTY not in held.begun(daemon)
        else:
            assert futures[GUILTY].result(PATIENCE)
        assert daemon.log().count("rejected:") == (how == "crashed")
        assert daemon.process is not None and daemon.process.poll() is None
        assert all(infer(client, 0.5) for client in clients)
    assert daemon.stop() == 0 and daemon.shm() == []
