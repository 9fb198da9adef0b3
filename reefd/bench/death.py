# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench death`: how soon a waiting client knows that its daemon was killed, and how soon it is served again.

The first: the clock starts before kill(2) and stops when reef_wait(), or poll(2) on reef_fd(), has returned in another
process, in SCHED_FIFO where that is permitted, as a real-time client would be. (In a thread of this process it would
also wait for the interpreter's lock.)

The second: a real-time and a best-effort client keep their slots full; the daemon is killed, waited for and started
again, as a service manager does without a pause; the clock stops at the real-time client's first completion. The floor
beside it is an interpreter that does nothing, in the same run.

    python -m reefd.bench.death wait|poll SOCKET   a client: "ready", then the time at which it was woken
    python -m reefd.bench.death serve SOCKET       a client: "ready", then the time of each completion
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from reefd.bench import child
from reefd.bench.clients import Load
from reefd.bench.daemon import BenchError, PrivateDaemon
from reefd.bench.report import Case, case

MODEL, LOAD = "iris", "face_detector"
RT_TASK, BE_TASK = "bench-rt", "bench-be"
ECHO = {"echo.yaml": f"version: 1\ntask: {RT_TASK}\nclass: rt\nmodel: echo:64\n"}
MANIFESTS = {
    "rt.yaml": f"version: 1\ntask: {RT_TASK}\nclass: rt\nmodel: {MODEL}\nslots: 2\n",
    "be.yaml": f"version: 1\ntask: {BE_TASK}\nclass: be\nmodel: {LOAD}\nslots: 4\n",
}
SETTLE_S = 0.05  # until a waiter sleeps
SERVE_S = 0.4  # of service between two kills
OUTAGE_NS = 5_000_000  # no daemon starts in less: a later completion is its successor's
TIME = struct.Struct("=q")


def measure(rounds: int, resource_dir: Path) -> tuple[list[Case], dict[str, float], list[str]]:
    """Nanoseconds from the kill: to a waiter's return, to a poller's, to the first completion; and the floor."""
    for model in (MODEL, LOAD):
        if not (resource_dir / model / "model.json").exists():
            raise BenchError(f"there is no {model} in {resource_dir}: run `make resources`, or name --resource-dir")
    woken = np.array([_woken("wait") for _ in range(rounds)])
    polled = np.array([_woken("poll") for _ in range(rounds)])
    served, floor = _served(rounds, resource_dir.resolve())
    cases = [
        case("SIGKILL to -ENOTCONN", woken),
        case("SIGKILL to poll(reef_fd)", polled),
        case("SIGKILL to first completion", np.array(served)),
        case("python -c pass", np.array(floor)),
    ]
    notes = [f"a daemon of two networks, {RT_TASK} ({MODEL}) and {BE_TASK} ({LOAD}), both busy when it is killed"]
    return cases, {"known under 1 ms": round(float(np.mean(woken < 1e6)), 3)}, notes


def _client(how: str, socket: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "reefd.bench.death", how, str(socket)]
    client = child.start(command, stdout=subprocess.PIPE)
    assert client.stdout is not None
    if client.stdout.readline() != b"ready\n":
        raise BenchError(f"a client that should {how} could not: see its words above")
    return client


def _woken(how: str) -> int:
    with PrivateDaemon(ECHO, log_level="error") as daemon:
        client = _client(how, daemon.socket)
        time.sleep(SETTLE_S)
        start = time.monotonic_ns()
        os.kill(daemon.pid, signal.SIGKILL)
        out, _ = client.communicate()
    if client.returncode != 0:
        raise BenchError("the waiter was told something else than -ENOTCONN")
    return int.from_bytes(out, "little") - start


def _served(rounds: int, resource_dir: Path) -> tuple[list[int], list[int]]:
    served: list[int] = []
    with ExitStack() as stack:
        daemon = stack.enter_context(PrivateDaemon(MANIFESTS, resource_dirs=[resource_dir], log_level="error"))
        load = stack.enter_context(Load(BE_TASK, daemon.socket))
        load.go_on()
        client = _client("serve", daemon.socket)
        stack.callback(client.wait)
        stack.callback(client.kill)
        assert client.stdout is not None
        for _ in range(rounds):
            time.sleep(SERVE_S)
            start = time.monotonic_ns()
            daemon.replace()
            done = 0
            while done < start + OUTAGE_NS:
                (done,) = TIME.unpack(client.stdout.read(TIME.size))
            served.append(done - start)
        os.kill(daemon.pid, signal.SIGKILL)  # the clients wait now, as they did for each successor
        return served, [_interpreter() for _ in range(rounds)]


def _interpreter() -> int:
    start = time.monotonic_ns()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.monotonic_ns() - start


# ---------------------------------------------------------------- the clients


def _wait(socket: str, *, poll: bool) -> None:
    from libreef._reef import ffi, lib

    path, task = ffi.new("char[]", os.fsencode(socket)), ffi.new("char[]", RT_TASK.encode())
    params = ffi.new("struct reef_open_params *", {"size": ffi.sizeof("struct reef_open_params")})
    params.socket, params.task, params.flags = path, task, lib.REEF_OPEN_NO_RECONNECT
    session = ffi.new("reef_session **")
    if lib.reef_open(params, session) != 0:
        raise SystemExit("the private daemon refuses a session")
    completion = ffi.new("struct reef_completion *")
    poller = select.poll()
    poller.register(lib.reef_fd(session[0]), select.POLLIN)
    _announce()
    if poll:
        lib.reef_arm(session[0])
        poller.poll()
        woken = time.monotonic_ns()
        code = lib.reef_arm(session[0])
    else:
        code = lib.reef_wait(session[0], -1, completion)
        woken = time.monotonic_ns()
    if code != -errno.ENOTCONN:
        raise SystemExit(f"told {code}")
    os.write(1, woken.to_bytes(8, "little"))


def _serve(socket: str) -> None:
    from libreef import Client

    with Client(RT_TASK, socket=socket, timeout=60.0) as client, client.loan() as loan:
        loan.infer()
        _announce()
        while True:
            loan.infer()
            os.write(1, TIME.pack(time.monotonic_ns()))


def _announce() -> None:
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    os.write(1, b"ready\n")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2])
    else:
        _wait(sys.argv[2], poll=sys.argv[1] == "poll")
