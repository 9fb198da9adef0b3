# SPDX-License-Identifier: Apache-2.0
"""What a device may do to a daemon that serves clients: a kernel that touches an illegal address, one that never ends,
a model that the device has no room for. The guilty request ends with -EIO, all others exactly once with the right bits.

The kernels are real: a resource's code with a fault compiled into it, which one input sets off. On the stand-in
drivers; `REEF_TEST_GPU=cuda` (or `hip`) takes the machine's own driver and card, which needs a minute.
"""

import errno
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import libreef
from reefd import resource
from reefd.cli_status import ask
from reefd.gpu import stored
from reefd.gpu.program import plan_program
from reefd.resource.schema import Kernel, ModelFile, Storage
from tests.daemon import load_client
from tests.daemon.reefd_process import PATIENCE, Reefd

from . import standin
from .devices import GPUS, REAL, chain_model, compile_cached, target

EXIT_STUCK = 70
ELEMENTS = 3008
ILLEGAL, ENDLESS = 1234.5, 2345.5  # inputs that set a fault off
# A driver that runs kernels on this machine's processors is slow where they are busy, not stuck.
DEVICE_TIMEOUT_S = 2 if REAL else 10

_MISBEHAVE = f"""
#if defined(REEF_HOST)
extern "C" void reef_standin_fault();
#endif
REEF_DEVICE void misbehave(float x, void* y) {{
    if (x == {ILLEGAL}f) {{
#if defined(REEF_HOST)
        reef_standin_fault();
#else
        volatile u64 place = 8;
        *(volatile u32*)place = 1;
#endif
    }}
    while (x == {ENDLESS}f) *(volatile float*)y = x;  // a loop without a store is taken to end
}}
template <class K> struct Unary {{"""
_CHANGES = [
    ("\ntemplate <class K> struct Unary {", _MISBEHAVE),
    ("value[e] = activate<", "misbehave(x, args.p[3]);\n                value[e] = activate<"),
]


def with_faults(sources: Sequence[tuple[str, str]]) -> list[bytes]:
    """Compiled with a fault in every unary kernel."""
    changed = []
    for text, processor in sources:
        for old, new in _CHANGES if "struct Unary {" in text else ():
            assert old in text, "elementwise.cuh has changed: correct _CHANGES"
            text = text.replace(old, new)
        changed.append((text, processor))
    return compile_cached(changed)


def unary_model() -> ModelFile:
    """y = sigmoid(sigmoid(x)): the first kernel sees what a client sent."""
    shape = [ELEMENTS]
    storage = [
        Storage("x", ELEMENTS, "float32", "input", shape),
        Storage("y", ELEMENTS, "float32", "output", shape),
        Storage("t", ELEMENTS, "float32", "arena", shape, 0),
    ]
    schedule = [
        Kernel("first", [0, 2], "unary", ["read", "write"], {"activation": "sigmoid"}),
        Kernel("second", [2, 1], "unary", ["read", "write"], {"activation": "sigmoid"}),
    ]
    return ModelFile("faulty", storage, schedule, [0], [1], ELEMENTS * 4, version=1)


def huge_model(seed: int) -> tuple[ModelFile, dict[str, np.ndarray]]:
    """y = sigmoid(w x): weights of 16 MiB, and activations that no device has room for."""
    gap, wide = 400 << 30, 2048
    storage = [
        Storage("x", wide, "float32", "input", [1, wide]),
        Storage("y", wide, "float32", "output", [1, wide]),
        Storage("t", wide, "float32", "arena", [1, wide], gap),
        Storage("w", wide * wide, "float32", "weight", [wide, wide]),
    ]
    schedule = [
        Kernel("product", [0, 3, 2], "matmul", ["read", "read", "write"], {"trans_b": 1}),
        Kernel("sigmoid", [2, 1], "unary", ["read", "write"], {"activation": "sigmoid"}),
    ]
    weights = {"w": np.random.default_rng(seed).standard_normal((wide, wide), np.float32)}
    return ModelFile("huge", storage, schedule, [0], [1], gap + wide * 4, version=1), weights


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, processor = tmp_path_factory.mktemp("faults"), target(GPUS[0])
    for name, model, weights, compiler in (
        ("short", *chain_model(12, ELEMENTS), compile_cached),
        ("long", *chain_model(48, ELEMENTS), compile_cached),
        ("faulty", unary_model(), {}, with_faults),
        *((f"huge{number}", *huge_model(number), compile_cached) for number in range(3)),
    ):
        code = stored.make(plan_program(model, weights, processor), compile_sources=compiler)
        resource.write(folder / name, model, weights, {processor: code})
    return folder


MANIFESTS = {
    "rt.yaml": "version: 1\ntask: rt\nclass: rt\nmodel: short\nslots: 2\n",
    "be.yaml": "version: 1\ntask: be\nclass: be\nmodel: long\nslots: 3\n",
    "guilty.yaml": "version: 1\ntask: guilty\nclass: be\nmodel: faulty\nslots: 2\n",
}
HUGE = "version: 1\ntask: huge\nclass: be\nmodel: huge{number}\nslots: 1\n"


@pytest.fixture
def daemon(kind: str, resources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reefd]:
    if not REAL:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(standin.build(kind).parent))
        monkeypatch.setenv("REEF_STANDIN_MEMORY", str(1 << 30))
    (tmp_path / "reefd.yaml").write_text(
        f"reclaim_timeout: {PATIENCE} s\ndevice_timeout: {DEVICE_TIMEOUT_S} s\nspinning: never\n"
    )
    options = ("--device", kind, "--config", tmp_path / "reefd.yaml")
    made = Reefd(tmp_path, MANIFESTS, resources=resources, options=options)
    monkeypatch.setenv("REEF_SOCKET", str(made.socket))
    yield made
    made.close()


class Innocents:
    """Clients that keep their slots busy, and account for every request."""

    def __init__(self, daemon: Reefd) -> None:
        self.processes = []
        for task, more in (("rt", ["--rate", "100"]), ("be", []), ("guilty", ["--rate", "20"])):
            program = Path(load_client.__file__)
            command = [sys.executable, str(program), str(daemon.socket), task, "1", str(PATIENCE), *more]
            self.processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for process in self.processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"

    def __enter__(self) -> "Innocents":
        return self

    def account(self) -> int:
        """Ends them when all that they submitted is completed, once each and to the bit; how many were replayed."""
        replayed = 0
        for process in self.processes:
            text, _ = process.communicate(timeout=4 * PATIENCE)
            assert process.returncode == 0
            found = json.loads(text)
            assert found["submitted"] == found["completed"] > 0, found
            assert found["twice"] == found["wrong"] == found["failed"] == 0, found
            replayed += found["replayed"]
        return replayed

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


class Guilty(threading.Thread):
    """One request that sets a fault off, then an honest one; of each its code and output."""

    def __init__(self, value: float) -> None:
        super().__init__(daemon=True)
        self.value = value
        self.code, self.after = 0, np.zeros(0, np.float32)
        self.failed = ""

    def run(self) -> None:
        try:
            with libreef.Client("guilty", timeout=4.0 * PATIENCE, reconnect=True) as client:
                with client.loan() as loan:
                    loan.inputs["x"][:] = 0.25
                    loan.inputs["x"].array[ELEMENTS // 2] = self.value
                    try:
                        loan.infer(timeout=4.0 * PATIENCE)
                    except libreef.ReefError as error:
                        self.code = error.code
                with client.loan() as loan:
                    loan.inputs["x"][:] = 0.25
                    self.after = np.array(loan.infer(timeout=4.0 * PATIENCE)["y"].array)
        except Exception as error:
            self.failed = repr(error)


def started_again_until(daemon: Reefd, over: Callable[[], bool]) -> int:
    """As systemd does; how often the daemon ended."""
    end, ends = time.monotonic() + 4 * PATIENCE, 0
    while not over():
        assert time.monotonic() < end, daemon.log_file.read_text()
        assert daemon.process is not None
        code = daemon.process.poll()
        if code is not None:
            assert code == EXIT_STUCK, daemon.log()
            ends += 1
            daemon.start(wait=False)
        time.sleep(0.01)
    return ends


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        *((kind, ILLEGAL, "the driver reports a fault") for kind in GPUS),
        (GPUS[0], ENDLESS, "has finished no block for"),
    ],
)
def test_only_the_guilty_request_fails(daemon: Reefd, value: float, words: str) -> None:
    with Innocents(daemon) as innocents:
        guilty = Guilty(value)
        guilty.start()
        ends = started_again_until(daemon, lambda: not guilty.is_alive())
        assert guilty.failed == "" and guilty.code == -errno.EIO
        half = 1 / (1 + np.exp(-np.float64(0.25)))
        assert np.abs(guilty.after - 1 / (1 + np.exp(-half))).max() < 1e-5
        # An illegal address may be any of those that were on the device: the suspects are tried one by one. Every other
        # suspect has been on a failing device once only, so no innocent one is blamed.
        assert 1 <= ends <= 2, daemon.log_file.read_text()
        daemon.wait_for_log("ready:")
        replayed = innocents.account()
    log = daemon.log_file.read_text()
    assert log.count("device-stuck") == ends and words in log
    print(f"{words}: {ends} daemons ended, {replayed} requests of others were run again")
    assert daemon.stop() == 0 and daemon.shm() == []


@pytest.mark.parametrize("kind", GPUS)
def test_a_model_without_room_is_refused_with_sizes_while_others_run(daemon: Reefd) -> None:
    free = []
    with Innocents(daemon) as innocents:
        for number in range(3):
            (daemon.manifest_dir / "huge.yaml").write_text(HUGE.format(number=number))
            answer = json.loads(ask(daemon.runtime_dir / "control.sock", "reload", seconds=PATIENCE))
            assert answer["error"].startswith(str(daemon.manifest_dir / "huge.yaml")), answer
            found = re.search(r"needs (\d+) MiB of device memory; (\d+) MiB of (\d+) MiB are free", answer["error"])
            assert found is not None and int(found[1]) >= 400 << 10 and int(found[2]) <= int(found[3]), answer
            free.append(int(found[2]))
            (daemon.manifest_dir / "huge.yaml").unlink()
        assert innocents.account() == 0
    # Each is another model. The first may leave what a driver keeps for itself; the next one's weights are gone.
    assert abs(free[1] - free[2]) < 8, free
    assert {task["task"] for task in daemon.status()["tasks"]} == {"rt", "be", "guilty"}
    assert daemon.stop() == 0 and daemon.shm() == []


@pytest.mark.parametrize("kind", GPUS)
def test_a_start_with_a_model_without_room_serves_the_others(daemon: Reefd) -> None:
    assert daemon.stop() == 0
    (daemon.manifest_dir / "huge.yaml").write_text(HUGE.format(number=0))
    daemon.start()
    assert "an execution context needs 409601 MiB of device memory" in daemon.log()
    assert {task["task"] for task in daemon.status()["tasks"]} == {"rt", "be", "guilty"}
    with libreef.Client("guilty", timeout=float(PATIENCE)) as client, client.loan() as loan:
        loan.inputs["x"][:] = 0.25
        assert np.isfinite(loan.infer(timeout=float(PATIENCE))["y"].array).all()
