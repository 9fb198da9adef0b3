# SPDX-License-Identifier: Apache-2.0
"""A daemon dies; the next takes its sessions over: accepted once, executed at least once, completed exactly once."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from libreef._reef import ffi, lib
from reefd import _engine
from tests import ROOT, wait_until

from . import models
from .regions import Client, Regions, open_session
from .simulation import Simulation


class Daemon:
    """tests/engine/daemon.py, serving one session."""

    def __init__(self, regions: Regions, epoch: int, adopt: bool) -> None:
        fds = {
            "c_fd": regions.c_fd,
            "d_fd": regions.d_fd,
            "doorbell": regions.doorbell,
            "socket": regions.daemon_socket.fileno(),
        }
        options = json.dumps(fds | {"session_id": 1, "epoch": epoch, "adopt": adopt})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.daemon", options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=list(fds.values()),
        )

    def ready(self) -> Daemon:
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def freeze(self) -> None:
        """Returns when none of its threads runs."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def sizes() -> _engine.Region:
    engine = _engine.Engine(device="cpu", workers=1)
    return engine.region(models.add_task(engine))


def test_killed_again_and_again_under_load():
    kills, rng = 12, random.Random(7)
    regions = Regions(sizes())
    daemon = Daemon(regions, 1, adopt=False).ready()
    client = Client(regions)
    data = np.random.default_rng(3).normal(size=(4, models.SIZE)).astype(np.float32)
    answers = models.expected(data)
    for slot in range(4):
        client.input(slot)[: data[slot].nbytes] = data[slot].tobytes()
    submitted: dict[int, tuple[int, int]] = {}  # slot: model, generation
    completions, replayed, refused = 0, 0, 0

    def fill() -> None:
        for slot in range(4):
            if slot not in submitted:
                model = int(rng.random() < 0.5)
                submitted[slot] = model, client.submit(slot, model=model, publish=rng.random() < 0.8)
        client.publish()

    def drain() -> None:
        nonlocal completions, replayed, refused
        for done in client.take():
            model, generation = submitted.pop(done.slot)  # KeyError: completed twice
            assert done.generation == generation
            if done.status == -errno.EIO:  # it was running in three deaths
                refused += 1
            else:
                assert done.status == 0
                if model == 1:
                    output = np.frombuffer(client.output(done.slot)[: answers[done.slot].size * 4], np.float32)
                    np.testing.assert_allclose(output, answers[done.slot], atol=1e-5)
            replayed += bool(done.flags & lib.REEF_CQE_REPLAYED)
            completions += 1

    def stopped_while_it_runs() -> bool:
        fill()
        daemon.freeze()
        running = any(client.slots[slot].state == lib.REEF_SLOT_RUNNING for slot in range(4))
        if not running:
            daemon.process.send_signal(signal.SIGCONT)
        drain()
        return running

    def load_for(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            fill()
            drain()

    for epoch in range(2, kills + 2):
        load_for(0.02 + 0.05 * rng.random())
        if epoch % 2:  # at any moment; and every other time while something runs
            wait_until(stopped_while_it_runs, what="running")
        daemon.kill()
        fill()
        before = completions
        daemon = Daemon(regions, epoch, adopt=True).ready()
        assert client.d_hot.daemon_epoch == epoch
        wait_until(lambda before=before: (fill(), drain()) and completions > before, what="served again")
    wait_until(lambda: drain() or not submitted, what="everything completes")
    assert client.d_hot.verdict == 0
    assert replayed > 0 and refused <= replayed
    stats = client.d_hot.stats
    assert stats.completed <= completions  # published before the completion: a death in between loses a count
    daemon.kill()
    regions.close()


def test_a_stop_that_keeps_sessions_is_a_hand_over():
    regions = Regions(sizes())
    daemon = Daemon(regions, 1, adopt=False).ready()
    client = Client(regions)
    for slot in range(4):
        client.submit(slot, model=1)
    wait_until(lambda: client.d_hot.sq_head == 4)
    out, _ = daemon.process.communicate()
    counts = json.loads(out)
    assert counts["failed"] == 0 and counts["finished"] + counts["kept"] <= 4
    assert client.d_hot.liveness == 0 and client.d_hot.verdict == 0
    daemon = Daemon(regions, 2, adopt=True).ready()
    assert sorted((d.slot, d.status) for d in client.wait(4)) == [(slot, 0) for slot in range(4)]
    daemon.kill()
    regions.close()


def test_death_wakes_who_sleeps_on_the_liveness_word():
    regions = Regions(sizes())
    daemon = Daemon(regions, 1, adopt=False).ready()
    client = Client(regions)
    word = int(client.d_hot.liveness)
    assert word & 0x80000000  # FUTEX_WAITERS, so that the kernel wakes
    libc = ctypes.CDLL(None, use_errno=True)
    address = int(ffi.cast("uintptr_t", ffi.addressof(client.d_hot, "liveness")))
    woken = []

    def sleep() -> None:
        limit = (ctypes.c_long * 2)(600, 0)
        libc.syscall(202, ctypes.c_void_p(address), 0, ctypes.c_uint(word), limit, None, 0)
        woken.append(int(client.d_hot.liveness))

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    task = Path(f"/proc/self/task/{sleeper.native_id}/syscall")
    wait_until(lambda: task.read_text().startswith(f"202 {address:#x} "), what="asleep")
    daemon.kill()
    sleeper.join(60)
    assert woken and woken[0] & 0x40000000  # FUTEX_OWNER_DIED
    regions.close()


# ---------------------------------------------------------------- D as a death between two stores leaves it


def interrupted(sim: Simulation, model: _engine.Model | None = None) -> tuple[int, Client]:
    """A session that nobody serves, to be edited and adopted. One request of slot 0 was completed and taken."""
    task = sim.task("be", "be", model or sim.model("m", (4, 100, 20)), slots=4)
    client = sim.session(task)
    client.submit(0, user_data=1)
    sim.until(200)
    assert len(client.take()) == 1
    sim.engine.detach(session_id=1, code=0)
    sim.until(201)
    assert [event.kind for event in sim.engine.poll_events()] == ["detached"]
    return task, client


def adopt(sim: Simulation, task: int, client: Client) -> dict[str, int]:
    client.regions.attach(sim.engine, task, 1, epoch=2, adopt=True)
    (event,) = [event for event in sim.engine.poll_events() if event.kind == "adopted"]
    return dict(zip(("replayed", "posted", "skipped", "rejected"), event.values, strict=True))


def accept_by_hand(client: Client, slot: int, state: int, user_data: int) -> None:
    """The daemon's half of acceptance, up to the store of generation and state."""
    client.submit(slot, user_data=user_data)
    ffi.memmove(ffi.addressof(client.slots[slot], "sqe"), client.sq + (client.sq_tail - 1) % client.entries, 64)
    client.slots[slot].accept_ns = 1_000_000_123
    client.slots[slot].generation, client.slots[slot].state = client.generations[slot], state


def test_died_before_acceptance(sim):
    task, client = interrupted(sim)
    client.submit(1, user_data=5)
    ffi.memmove(ffi.addressof(client.slots[1], "sqe"), client.sq + 1, 64)  # the copy alone means nothing
    assert adopt(sim, task, client) == {"replayed": 0, "posted": 0, "skipped": 0, "rejected": 0}
    sim.until(1000)
    assert [(d.user_data, d.status, d.flags) for d in client.take()] == [(5, 0, 0)]


def test_died_between_acceptance_and_sq_head(sim):
    task, client = interrupted(sim)
    accept_by_hand(client, 1, lib.REEF_SLOT_ACCEPTED, 5)
    assert client.d_hot.sq_head == 1
    assert adopt(sim, task, client) == {"replayed": 1, "posted": 0, "skipped": 1, "rejected": 0}
    assert client.d_hot.sq_head == 2
    sim.until(1000)
    assert [(d.user_data, d.status, d.accept_ns) for d in client.take()] == [(5, 0, 1_000_000_123)]
    client.submit(1, user_data=6)
    sim.until(2000)
    assert [d.user_data for d in client.take()] == [6] and client.d_hot.verdict == 0


def test_died_while_running(sim):
    task, client = interrupted(sim)
    accept_by_hand(client, 1, lib.REEF_SLOT_RUNNING, 5)
    client.slots[1].attempts = 1
    client.d_hot.sq_head = 2
    client.sq[1].user_data = 99  # what C says now does not count
    assert adopt(sim, task, client)["replayed"] == 1
    assert client.slots[1].state in (lib.REEF_SLOT_ACCEPTED, lib.REEF_SLOT_RUNNING)
    sim.until(1000)
    assert [(d.user_data, d.status, d.flags) for d in client.take()] == [(5, 0, lib.REEF_CQE_REPLAYED)]
    assert client.slots[1].attempts == 2


def test_died_between_the_final_state_and_cq_tail(sim):
    task, client = interrupted(sim)
    client.submit(1, user_data=5)
    client.regions.attach(sim.engine, task, 1, epoch=2, adopt=True)
    sim.until(1000)
    sim.engine.detach(session_id=1, code=0)
    sim.until(1001)
    sim.engine.poll_events()
    assert client.d_hot.cq_tail == 2 and client.slots[1].state == lib.REEF_SLOT_DONE
    client.d_hot.cq_tail = 1
    assert adopt(sim, task, client) == {"replayed": 0, "posted": 1, "skipped": 0, "rejected": 0}
    assert [(d.user_data, d.status) for d in client.take()] == [(5, 0)]
    assert len(sim.events("retire")) == 2  # not executed again


@pytest.mark.parametrize(("fine", "too_many"), [((15, 1), (16, 0)), ((2, 1), (2, 2))], ids=["killed", "its fault"])
def test_a_request_in_which_the_daemon_died_too_often_is_rejected(sim, fine, too_many):
    task, client = interrupted(sim)
    for slot, (attempts, crashes) in ((1, fine), (2, too_many)):
        accept_by_hand(client, slot, lib.REEF_SLOT_RUNNING, slot)
        client.slots[slot].attempts = attempts
        client.slots[slot].crashes = crashes
    client.d_hot.sq_head = 3
    client.regions.attach(sim.engine, task, 1, epoch=2, adopt=True)
    sim.until(1000)
    assert sorted((d.slot, d.status) for d in client.take()) == [(1, 0), (2, -errno.EIO)]
    assert client.slots[2].state == lib.REEF_SLOT_REJECTED
    events = {event.kind: event for event in sim.engine.poll_events()}
    assert events["rejected"].values == (2, 1, *too_many) and events["adopted"].values[3] == 1


def test_a_verdict_outlives_its_daemon(sim):
    task, client = interrupted(sim)
    accept_by_hand(client, 1, lib.REEF_SLOT_ACCEPTED, 5)
    client.d_hot.sq_head = 2
    client.d_hot.verdict = -errno.EPROTO
    client.submit(2)
    client.regions.attach(sim.engine, task, 1, epoch=2, adopt=True)
    sim.until(1000)
    assert [(d.slot, d.status) for d in client.take()] == [(1, -errno.EPROTO)]


def test_what_the_client_wrote_meanwhile_is_checked_like_always(sim):
    task, client = interrupted(sim)
    client.hot.sq_tail = client.sq_tail + 1000
    adopt(sim, task, client)
    sim.until(1000)
    assert client.d_hot.verdict == -errno.EPROTO


def damage(path: str, value: int):
    def edit(client: Client) -> None:
        target = {"header": client.header, "slot": client.slots[1]}[path.split(".")[0]]
        setattr(target, path.split(".")[1], value)

    return edit


@pytest.mark.parametrize(
    "path, value",
    [
        ("header.magic", 1),
        ("header.slots", 8),
        ("header.c_sq_offset", 0),
        ("header.d_outputs_stride", 1 << 40),
        ("header.signature", 3),
        ("header.session_id", 2),
        ("header.task_class", 0),
        ("slot.state", 9),
    ],
)
def test_a_damaged_region_is_not_adopted(sim, path, value):
    task, client = interrupted(sim)
    damage(path, value)(client)
    before = bytes(client._d)
    with pytest.raises(_engine.EngineError) as caught:
        client.regions.attach(sim.engine, task, 1, epoch=2, adopt=True)
    assert caught.value.code == -errno.EBADMSG
    assert bytes(client._d) == before
    # The engine still takes it once it is whole, and the session's place is free.
    fresh = open_session(sim.engine, task, 1)
    fresh.submit(0)
    sim.until(1000)
    assert len(fresh.take()) == 1


@pytest.mark.parametrize("field, value", [("model", 5), ("slot", 2), ("generation", 9), ("opcode", 1)])
def test_a_damaged_copy_is_not_replayed(sim, field, value):
    task, client = interrupted(sim)
    accept_by_hand(client, 1, lib.REEF_SLOT_ACCEPTED, 5)
    setattr(client.slots[1].sqe, field, value)
    with pytest.raises(_engine.EngineError) as caught:
        client.regions.attach(sim.engine, task, 1, epoch=2, adopt=True)
    assert caught.value.code == -errno.EBADMSG and "slot 1" in str(caught.value)


def test_another_abi_is_refused_by_name(sim):
    task, client = interrupted(sim)
    client.header.abi_major = 2
    with pytest.raises(_engine.EngineError, match=r"ABI 2\.1, this daemon speaks 1\.1") as caught:
        client.regions.attach(sim.engine, task, 1, epoch=2, adopt=True)
    assert caught.value.code == -errno.EPROTONOSUPPORT


def test_a_region_of_another_task_is_not_adopted(sim):
    _, client = interrupted(sim)
    other = sim.task("other", "be", sim.model("m", (4, 100, 20)), slots=4)
    with pytest.raises(_engine.EngineError) as caught:
        client.regions.attach(sim.engine, other, 1, epoch=2, adopt=True)
    assert caught.value.code == -errno.EBADMSG


# ---------------------------------------------------------------- retries run alone


def test_what_was_on_the_device_is_run_again_alone(sim):
    """Two were there when the daemon died: a second death must tell which of them it was."""
    first = sim.task("first", "be", sim.model("a", (4, 100, 20), (4, 100, 20)), slots=2)
    second = sim.task("second", "be", sim.model("b", (4, 100, 20), (4, 100, 20)), slots=2)
    a, b = sim.session(first), sim.session(second)
    a.submit(0)
    b.submit(0)
    sim.until(50)
    assert a.slots[0].state == b.slots[0].state == lib.REEF_SLOT_RUNNING  # side by side
    a.submit(1)
    sim.engine.stop(grace_ns=0, keep_sessions=True)

    after = Simulation()
    tasks = [
        after.task("first", "be", after.model("a", (4, 100, 20), (4, 100, 20)), slots=2),
        after.task("second", "be", after.model("b", (4, 100, 20), (4, 100, 20)), slots=2),
    ]
    urgent = open_session(after.engine, after.task("rt", "rt", after.model("c", (4, 10, 10))), 3)
    for number, (client, task) in enumerate(zip((a, b), tasks, strict=True), 1):
        client.regions.attach(after.engine, task, number, epoch=2, adopt=True)
    after.until(30)
    urgent.submit(0)  # does not wait for them
    after.until(5000)
    (done,) = urgent.take()
    assert after.times(done)[2] < 100
    a_done, b_done = sorted(a.take(), key=lambda done: done.slot), b.take()
    assert [done.status for done in (*a_done, *b_done)] == [0] * 3
    spans = sorted((done.start_ns, done.end_ns) for done in (a_done[0], *b_done))
    assert spans[0][1] <= spans[1][0]  # one after the other
    assert a_done[1].start_ns >= spans[1][1]  # and what never ran before, after both
    assert all(time < after.us(spans[0][1]) or time >= after.us(spans[1][0]) for time, *_ in after.events("block", "b"))
    sim.engine = after.engine


def test_a_retry_that_waits_for_its_turn_can_be_cancelled_and_expires(sim):
    task = sim.task("first", "be", sim.model("a", (4, 1000, 20)), slots=2)
    client = sim.session(task)
    client.submit(0)
    client.submit(1, deadline_ns=sim.absolute(1500))
    sim.until(100)
    assert client.slots[1].state == lib.REEF_SLOT_RUNNING
    sim.engine.stop(grace_ns=0, keep_sessions=True)
    after = Simulation()
    task = after.task("first", "be", after.model("a", (4, 1000, 20)), slots=2)
    client.regions.attach(after.engine, task, 1, epoch=2, adopt=True)
    after.until(5000)
    assert {done.slot: done.status for done in client.take()} == {0: 0, 1: -errno.ETIME}
    sim.engine = after.engine
