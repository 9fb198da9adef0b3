# SPDX-License-Identifier: Apache-2.0
"""The rings with the engine thread on its own: wrap-around, sleep and wake-up, doorbells that ring too often."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import threading
import time
from pathlib import Path

import pytest

from libreef._reef import ffi, lib
from reefd import _engine
from tests import wait_until

from .regions import Client, Regions, echo_task, open_session

NEAR_WRAP = (1 << 32) - 5
SYS_FUTEX = 202


@pytest.fixture
def engine():
    engine = _engine.Engine(device="cpu", workers=1)
    engine.start()
    yield engine
    engine.stop(grace_ns=0, keep_sessions=False)


@pytest.mark.parametrize("spinning", ["auto", "always", "never"])
def test_round_trips(engine, spinning):
    engine.set_spinning(spinning)
    client = open_session(engine, echo_task(engine, task_class="be"))
    for i in range(300):
        client.submit(i % 4, user_data=i)
        (done,) = client.wait()
        assert (done.user_data, done.slot, done.status) == (i, i % 4, 0)


def test_a_batch_with_one_doorbell(engine):
    client = open_session(engine, echo_task(engine, slots=64))
    for slot in range(64):
        client.submit(slot, publish=False, user_data=slot)
    client.publish()
    assert [d.user_data for d in client.wait(64)] == list(range(64))


def near_the_wrap(engine: _engine.Engine, task: int) -> Client:
    """A session whose 32-bit indices are about to wrap, as an old one has them when it is adopted."""
    regions = Regions(engine.region(task))
    regions.attach(engine, task, 99)
    client = Client(regions)
    engine.detach(session_id=99, code=0)
    wait_until(lambda: [event.kind for event in engine.poll_events()] == ["detached"])
    client.hot.sq_tail = client.hot.cq_head = NEAR_WRAP
    client.d_hot.sq_head = client.d_hot.cq_tail = NEAR_WRAP
    regions.attach(engine, task, 99, epoch=2, adopt=True)
    return Client(regions)


def test_indices_wrap_around(engine):
    client = near_the_wrap(engine, echo_task(engine))
    for i in range(20):
        client.submit(i % 4, user_data=i, sequence=(7 << 32) + client.sq_tail)
        (done,) = client.wait()
        assert (done.user_data, done.status) == (i, 0)
        assert done.sequence & 0xFFFFFFFF == (NEAR_WRAP + i) & 0xFFFFFFFF
    assert client.d_hot.cq_tail == client.d_hot.sq_head == 15
    assert client.d_hot.verdict == 0


@pytest.mark.parametrize("back", [1 << 32, 1 << 31, (1 << 31) - 77, 12345])
def test_a_slot_that_rested_for_long_is_not_mistaken(engine, back):
    """A slot's last completion lies billions of completions back: its index says nothing any more."""
    task = echo_task(engine)
    client = near_the_wrap(engine, task)
    engine.detach(session_id=99, code=0)
    wait_until(lambda: "detached" in [event.kind for event in engine.poll_events()])
    slot = client.slots[2]
    slot.state, slot.generation, slot.cq_index = lib.REEF_SLOT_DONE, 41, (NEAR_WRAP - back) & 0xFFFFFFFF
    client.regions.attach(engine, task, 99, epoch=3, adopt=True)
    client = Client(client.regions)
    assert client.submit(2) == 42
    assert [d.status for d in client.wait()] == [0]


def test_an_idle_engine_sleeps_and_still_turns(engine):
    client = open_session(engine, echo_task(engine))
    wait_until(lambda: client.d_hot.need_wakeup == 1, what="asleep")
    turns, began = engine.snapshot()["turns"], time.monotonic()
    used = time.process_time()
    while engine.snapshot()["turns"] < turns + 4:
        assert time.monotonic() - began < 60, "it does not turn"
        time.sleep(0.1)
    took = time.monotonic() - began
    # It looks around every 100 ms, or later where it does not get the processor; never much more often.
    assert engine.snapshot()["turns"] - turns <= 10 + 100 * took
    assert time.process_time() - used < took / 2


def test_need_wakeup_is_set_only_while_it_sleeps(engine):
    client = open_session(engine, echo_task(engine))
    wait_until(lambda: client.d_hot.need_wakeup == 1, what="asleep")
    engine.set_spinning("always")

    def served_without_a_doorbell() -> bool:
        before = engine.snapshot()["doorbells"]
        client.submit(0)
        while not client.take():
            pass
        return engine.snapshot()["doorbells"] == before

    wait_until(served_without_a_doorbell, what="requests close together are polled for")
    wait_until(lambda: client.d_hot.need_wakeup == 1, what="an idle session is no longer polled")


@pytest.mark.parametrize(("sessions", "polled"), [(1, True), (64, True), (65, False)])
def test_real_time_sessions_that_pause_are_polled_while_they_are_few(engine, sessions, polled):
    task = echo_task(engine)
    clients = [open_session(engine, task, number) for number in range(1, sessions + 1)]
    engine.set_spinning("always")

    def all_polled() -> bool | None:
        """After a pause of a tenth of a second. None: this machine made it a longer one, which says nothing."""
        begin = time.monotonic()
        for client in clients:
            client.submit(0)
        for client in clients:
            client.wait()
        turns = engine.snapshot()["turns"]
        time.sleep(0.1)
        wait_until(lambda: engine.snapshot()["turns"] > turns + 1)
        found = all(client.d_hot.need_wakeup == 0 for client in clients)
        return found if time.monotonic() - begin < 1.5 else None

    wait_until(lambda: all_polled() is polled, timeout=60)


def futex_address(client: Client) -> int:
    return int(ffi.cast("uintptr_t", ffi.addressof(client.d_hot, "cq_tail")))


def futex(client: Client, expected: int, timeout: float) -> int:
    """FUTEX_WAIT on cq_tail; returns 0 or an errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    limit = (ctypes.c_long * 2)(int(timeout), int(timeout % 1 * 1e9))
    rc = libc.syscall(SYS_FUTEX, ctypes.c_void_p(futex_address(client)), 0, ctypes.c_uint(expected), limit, None, 0)
    return 0 if rc == 0 else ctypes.get_errno()


def test_a_waiter_on_the_futex_is_woken(engine):
    client = open_session(engine, echo_task(engine))
    for _ in range(20):
        tail = int(client.d_hot.cq_tail)
        client.hot.cq_waiting = lib.REEF_WAIT_FUTEX
        timer = threading.Timer(0.002, client.submit, (0,))
        timer.start()
        # The wake-up for the completion before may come as late as now: then it sleeps again.
        while client.d_hot.cq_tail == tail:
            assert futex(client, tail, 60.0) in (0, errno.EAGAIN)
        timer.join()
        assert client.d_hot.cq_tail == tail + 1
        client.take()


def test_a_completion_wakes_a_few_waiters_and_not_a_thousand(engine):
    """What a client can make the engine do for one completion is bounded."""
    client = open_session(engine, echo_task(engine))
    tail = int(client.d_hot.cq_tail)
    woken: list[int] = []
    threads = [threading.Thread(target=lambda: woken.append(futex(client, tail, 600.0))) for _ in range(60)]
    for thread in threads:
        thread.start()
    asleep = f"{SYS_FUTEX} {futex_address(client):#x} "  # the interpreter's lock is a futex too
    tasks = [Path(f"/proc/self/task/{thread.native_id}/syscall") for thread in threads]
    wait_until(lambda: all(task.read_text().startswith(asleep) for task in tasks), what="all asleep")
    client.hot.cq_waiting = lib.REEF_WAIT_FUTEX  # and left so: the engine reads it after it moved the tail
    client.submit(0)
    wait_until(lambda: woken, what="one of them awake")
    time.sleep(0.2)
    assert 1 <= len(woken) <= 4
    ctypes.CDLL(None).syscall(SYS_FUTEX, ctypes.c_void_p(futex_address(client)), 1, ctypes.c_uint(60), None, None, 0)
    for thread in threads:
        thread.join()


def test_no_byte_is_sent_that_was_not_asked_for(engine):
    client = open_session(engine, echo_task(engine))
    client.regions.socket.setblocking(False)
    client.submit(0)
    wait_until(lambda: client.d_hot.cq_tail == 1)
    with pytest.raises(BlockingIOError):
        client.regions.socket.recv(1)


def test_a_full_socket_does_not_stop_the_engine(engine):
    client = open_session(engine, echo_task(engine))
    client.hot.cq_waiting = lib.REEF_WAIT_SOCKET
    for i in range(2000):  # nobody reads the bytes
        client.submit(0)
        wait_until(lambda i=i: client.d_hot.cq_tail == i + 1)
        client.take()


def test_a_doorbell_that_rings_too_often_is_left_alone(engine):
    task = echo_task(engine)
    flooding, other = open_session(engine, task, 1), open_session(engine, task, 2)

    def ring_often() -> None:
        for _ in range(2000):
            os.eventfd_write(flooding.regions.doorbell, 1)
            time.sleep(0)

    def left_alone() -> bool:
        """Rings until the engine has had enough, and goes on; on a busy machine that may outlast the penalty."""
        wait_until(lambda: ring_often() or "flooding" in [event.kind for event in engine.poll_events()], what="flood")
        heard = engine.snapshot()["doorbells"]
        ring_often()
        return engine.snapshot()["doorbells"] - heard < 100

    wait_until(left_alone, what="left alone")
    for client in (flooding, other):  # both are served; and the flooding one has its doorbell back later
        client.submit(0)
        assert [d.status for d in client.wait()] == [0]
    wait_until(lambda: flooding.d_hot.need_wakeup == 1, what="the doorbell is used again")
    flooding.submit(0)
    assert [d.status for d in flooding.wait()] == [0]


def test_a_client_cannot_stop_the_engine_through_its_doorbell(engine):
    """The client shares the eventfd and may make it blocking and full: the daemon neither reads nor writes it."""
    task = echo_task(engine)
    bad, good = open_session(engine, task, 1), open_session(engine, task, 2)
    os.eventfd_write(bad.regions.doorbell, (1 << 64) - 2)
    os.set_blocking(bad.regions.doorbell, True)
    good.submit(0)
    assert [d.status for d in good.wait()] == [0]


def test_without_a_doorbell_a_session_is_looked_at_now_and_then(engine):
    task = echo_task(engine)
    regions = Regions(engine.region(task))
    regions.attach(engine, task, 1, doorbell=False)
    client = Client(regions)
    client.submit(0)
    assert [d.status for d in client.wait()] == [0]
    engine.set_wakeup(session_id=1, doorbell_fd=regions.doorbell, socket_fd=regions.daemon_socket.fileno())
    wait_until(lambda: client.d_hot.need_wakeup == 1)
    client.submit(0)
    assert [d.status for d in client.wait()] == [0]


def test_commands_are_refused_by_name(engine):
    task = echo_task(engine)
    client = open_session(engine, task, 1)
    for code, call in {
        errno.EEXIST: lambda: client.regions.attach(engine, task, 1),
        errno.ENOENT: lambda: engine.detach(session_id=5, code=0),
        errno.EBUSY: lambda: engine.remove_task(task),
        errno.EALREADY: engine.start,
        errno.EBADMSG: lambda: client.regions.attach(engine, echo_task(engine, task_class="be", slots=9), 7),
        errno.EINVAL: lambda: engine.set_spinning("sometimes"),
        errno.EOPNOTSUPP: lambda: engine.advance(1),
    }.items():
        with pytest.raises(_engine.EngineError) as caught:
            call()
        assert caught.value.code == -code


def descriptors_and_mappings() -> tuple[int, int]:
    gc.collect()  # what earlier tests left behind is not ours
    return len(list(Path("/proc/self/fd").iterdir())), len(Path("/proc/self/maps").read_text().splitlines())


def test_detach_gives_everything_back(engine):
    task = echo_task(engine)
    before = descriptors_and_mappings()
    for i in range(50):
        client = open_session(engine, task, i)
        client.submit(0)
        client.wait()
        engine.detach(session_id=i, code=0)
        wait_until(lambda: "detached" in [event.kind for event in engine.poll_events()])
        regions = client.regions
        client.__dict__.clear()
        regions.close()
    after = descriptors_and_mappings()
    assert after[0] <= before[0] and after[1] <= before[1] + 4
    engine.remove_task(task)


def test_the_most_sessions():
    engine = _engine.Engine(device="cpu", workers=1, max_sessions=3)
    engine.start()
    task = echo_task(engine)
    for i in range(3):
        open_session(engine, task, i)
    with pytest.raises(_engine.EngineError) as caught:
        open_session(engine, task, 3)
    assert caught.value.code == -errno.EMFILE
    engine.stop(grace_ns=0, keep_sessions=False)
    with pytest.raises(_engine.EngineError):
        _engine.Engine(device="cpu", max_sessions=2001)
