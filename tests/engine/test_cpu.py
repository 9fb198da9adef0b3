# SPDX-License-Identifier: Apache-2.0
"""The engine over the CPU device: answers are the same bits, whatever interrupted them."""

from __future__ import annotations

import errno
import time

import numpy as np
import pytest

from reefd import _engine
from tests import until_some, wait_until

from . import models
from .regions import Client, open_session

DATA = np.random.default_rng(11).normal(size=models.SIZE).astype(np.float32)


@pytest.fixture
def engine():
    engine = _engine.Engine(device="cpu", workers=2)
    yield engine
    if engine.snapshot()["turns"]:
        engine.stop(grace_ns=0, keep_sessions=False)


def answer(client: Client, slot: int) -> bytes:
    return client.output(slot)[: DATA.nbytes]


def fill(client: Client, slots: int) -> None:
    for slot in range(slots):
        client.input(slot)[: DATA.nbytes] = DATA.tobytes()


@pytest.mark.parametrize("preemptible", [False, True])
def test_run_without_a_session(engine, preemptible):
    model = engine.load(models.steps())
    assert (model.name, len(model.kernels), len(model.blocks)) == ("steps", models.STEPS, models.STEPS)
    output = np.zeros(models.SIZE, np.float32)
    times = engine.run(model, [DATA], [output], preemptible=preemptible)
    np.testing.assert_allclose(output, models.expected(DATA), atol=1e-5)
    assert times["execute_ns"] > 0
    engine.start()
    with pytest.raises(_engine.EngineError) as caught:
        engine.run(model, [DATA], [output])
    assert caught.value.code == -errno.EBUSY


def test_interrupted_requests_give_the_same_bits(engine):
    engine.start()
    best_effort = open_session(engine, models.add_task(engine), 1)
    real_time = open_session(engine, models.add_task(engine, "rt"), 2)
    fill(best_effort, 4)
    fill(real_time, 4)
    best_effort.submit(0, model=1)
    best_effort.wait()
    alone = answer(best_effort, 0)
    np.testing.assert_allclose(np.frombuffer(alone, np.float32), models.expected(DATA), atol=1e-5)

    preemptions, round_ = 0, 0

    def disturbed() -> bool:
        """One round; whether there were enough, of preemptions too: on a busy machine some come too late."""
        nonlocal preemptions, round_
        for slot in range(4):
            best_effort.submit(slot, model=1, publish=False)
        best_effort.publish()
        done = []
        while len(done) < 4:
            real_time.submit(round_ % 4, model=1)
            (urgent,) = real_time.wait()
            assert urgent.status == 0 and answer(real_time, round_ % 4) == alone
            time.sleep(0.0003 * (round_ % 7))
            done += best_effort.take()
        for completion in done:
            assert completion.status == 0
            assert answer(best_effort, completion.slot) == alone
            preemptions += completion.preemptions
        round_ += 1
        return round_ >= 25 and preemptions > 25

    until_some(disturbed)
    (be, rt) = engine.snapshot()["tasks"]
    assert be["preempted"] == preemptions and be["abandoned_windows"] >= preemptions
    assert rt["preemption"]["count"] > 0


def test_cancelled_and_detached_while_running(engine):
    engine.start()
    task = models.add_task(engine)
    for i in range(20):
        client = open_session(engine, task, i)
        for slot in range(4):
            client.submit(slot, model=1, publish=False)
        client.publish()
        wait_until(lambda client=client: client.d_hot.sq_head == 4)
        verdict = client.cancel(i % 4, 1)
        assert verdict in (0, -errno.EALREADY)
        if i % 2:
            statuses = {d.slot: d.status for d in client.wait(4)}
            assert statuses[i % 4] == (-errno.ECANCELED if verdict == 0 else 0)
        engine.detach(session_id=i, code=0)
        wait_until(lambda: "detached" in [event.kind for event in engine.poll_events()])
        assert client.d_hot.cq_tail == 4
