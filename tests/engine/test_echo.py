# SPDX-License-Identifier: Apache-2.0
"""Requests travel through the rings and back: echo round trips, wrap-around, batches."""

from __future__ import annotations

import pytest

from reefd import _engine

from .regions import echo_task, open_session


@pytest.fixture
def engine():
    engine = _engine.Engine(device="simulated")
    engine.start()
    yield engine
    engine.stop(grace_ns=0, keep_sessions=False)


@pytest.mark.parametrize("task_class", ["rt", "be"])
def test_round_trips(engine, task_class):
    client = open_session(engine, echo_task(engine, task_class=task_class))
    for i in range(100):
        client.input(i % 4)[:8] = i.to_bytes(8, "little")
        client.input(i % 4)[56:64] = (1000 + i).to_bytes(8, "little")
        generation = client.submit(i % 4, user_data=i)
        engine.advance(1000)
        (done,) = client.take()
        assert (done.user_data, done.slot, done.generation, done.sequence, done.status) == (i, i % 4, generation, i, 0)
        assert client.output(i % 4)[:16] == i.to_bytes(8, "little") + (1000 + i).to_bytes(8, "little")
    (session,) = engine.snapshot()["sessions"]
    assert (session["accepted"], session["completed"], session["failed"]) == (100, 100, 0)
