# SPDX-License-Identifier: Apache-2.0
"""Stopping: what is accepted may finish within the time of grace, the rest ends with -ESHUTDOWN, exactly once."""

from __future__ import annotations

import errno

import pytest

from reefd import _engine

from . import models
from .regions import echo_task, open_session
from .simulation import Simulation


def test_within_grace_everything_finishes():
    sim = Simulation()
    client = sim.client("be", "be", (4, 100, 20), (4, 100, 20))
    for slot in range(3):
        client.submit(slot)
    sim.until(50)
    assert sim.engine.stop(grace_ns=10_000_000, keep_sessions=False) == {"finished": 3, "failed": 0, "kept": 0}
    assert [d.status for d in client.take()] == [0, 0, 0]
    assert client.d_hot.verdict == -errno.ESHUTDOWN and client.d_hot.liveness == 0


def test_without_grace_the_rest_is_shut_down():
    sim = Simulation()
    be = sim.client("be", "be", *[(4, 100, 20)] * 4)
    rt = sim.client("rt", "rt", (4, 1000, 0))
    be.submit(0)
    rt.submit(0)
    rt.submit(1)
    sim.until(50)
    be.submit(1)  # in the ring, not accepted yet
    counts = sim.engine.stop(grace_ns=0, keep_sessions=False)
    assert counts == {"finished": 0, "failed": 4, "kept": 0}
    assert [d.status for d in be.take()] == [-errno.ESHUTDOWN] * 2
    assert [d.status for d in rt.take()] == [-errno.ESHUTDOWN] * 2
    # The running real-time request kept its memory until the device let go of it.
    assert any(what == "retire" and model == "rt" for _, what, _, model, _, _ in sim.engine.trace())


def test_kept_sessions_stay_as_they_are():
    sim = Simulation()
    be = sim.client("be", "be", *[(4, 100, 20)] * 4)
    be.submit(0)
    be.submit(1)
    sim.until(150)
    be.submit(2)
    assert sim.engine.stop(grace_ns=0, keep_sessions=True) == {"finished": 0, "failed": 0, "kept": 2}
    assert be.take() == [] and be.d_hot.verdict == 0 and be.d_hot.liveness == 0
    assert be.d_hot.sq_head == 2  # the third is the successor's to take


def test_nothing_works_after_a_stop_but_looking():
    engine = _engine.Engine(device="cpu", workers=1)
    with pytest.raises(_engine.EngineError) as caught:
        engine.stop(grace_ns=0, keep_sessions=False)
    assert caught.value.code == -errno.ENOTCONN
    engine.start()
    task = models.add_task(engine)
    client = open_session(engine, task)
    client.submit(0, model=1)
    engine.stop(grace_ns=5_000_000_000, keep_sessions=False)
    assert [d.status in (0, -errno.ESHUTDOWN) for d in client.take()] == [True]
    with pytest.raises(_engine.EngineError):
        open_session(engine, task, 2)
    assert engine.snapshot()["sessions"] == []
    assert engine.poll_events() == []


def test_a_forgotten_engine_ends_by_itself():
    engine = _engine.Engine(device="cpu", workers=1)
    engine.start()
    client = open_session(engine, models.add_task(engine))
    assert client.d_hot.liveness != 0
    del engine
    assert client.d_hot.liveness == 0 and client.d_hot.verdict == 0


def test_sessions_that_leave_while_the_engine_stops_are_forgotten_once():
    """Their detachment is still in the queue when they are gone already."""
    engine = _engine.Engine(device="cpu", workers=1, realtime=False)
    engine.start()
    task = echo_task(engine)
    clients = [open_session(engine, task, number) for number in range(1, 65)]
    for number in range(1, 65):
        engine.detach(session_id=number, code=0)
    engine.stop(grace_ns=0, keep_sessions=False)
    assert all(event.kind == "detached" for event in engine.poll_events())
    assert engine.snapshot()["sessions"] == []
    for client in clients:
        client.regions.close()
