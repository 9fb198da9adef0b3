# SPDX-License-Identifier: Apache-2.0
"""Real time preempts real time, and best-effort work that is preempted again and again still finishes."""

from __future__ import annotations

import errno
import time

import numpy as np
import pytest

from reefd import _engine

from . import models
from .regions import open_session
from .simulation import Simulation

# ---------------------------------------------------------------- real time preempts real time


def test_01_a_more_urgent_request_preempts_where_the_manifest_allows_it(sim):
    task = sim.task("slow", "rt", sim.model("slow", *[(4, 100, 20)] * 4), preemptible=True)
    slow = sim.session(task)
    fast = sim.client("fast", "rt", (4, 30, 0), priority=1)
    slow.submit(0)
    sim.until(150)
    fast.submit(0)
    sim.until(2000)
    (done,) = fast.take()
    assert sim.times(done) == (150, 150, 190)  # blocks leave at their check point at 160
    (done,) = slow.take()
    assert sim.times(done) == (0, 0, 190 + 300)  # its second kernel runs again, its first one does not
    assert done.preemptions == 1 and sim.counters(task)["preempted"] == 1
    assert set(sim.blocks_run("slow").values()) == {1}


def test_02_and_waits_where_it_does_not(sim):
    slow = sim.client("slow", "rt", *[(4, 100, 20)] * 4)
    fast = sim.client("fast", "rt", (4, 30, 0), priority=1)
    slow.submit(0)
    sim.until(150)
    fast.submit(0)
    sim.until(2000)
    assert sim.times(fast.take()[0]) == (150, 400, 430)


def test_03_arrival_is_no_reason_to_preempt(sim):
    first = sim.client("first", "rt", *[(4, 100, 20)] * 4, preemptible=True)
    second = sim.client("second", "rt", (4, 30, 0))
    first.submit(0)
    sim.until(150)
    second.submit(0)
    sim.until(2000)
    assert sim.times(second.take()[0])[1] == 400


def test_04_an_earlier_deadline_outranks_priority(sim):
    high = sim.client("high", "rt", *[(4, 100, 20)] * 4, preemptible=True, priority=9)
    urgent = sim.client("urgent", "rt", (4, 30, 0))
    high.submit(0, deadline_ns=sim.absolute(9000))
    sim.until(150)
    urgent.submit(0, deadline_ns=sim.absolute(1000))
    sim.until(2000)
    assert sim.times(urgent.take()[0])[2] == 190


def test_05_preemption_nests(sim):
    low = sim.client("low", "rt", *[(4, 100, 10)] * 4, preemptible=True)
    middle = sim.client("middle", "rt", *[(4, 100, 10)] * 2, preemptible=True, priority=1)
    high = sim.client("high", "rt", (4, 50, 0), priority=2)
    low.submit(0)
    sim.until(110)
    middle.submit(0)
    sim.until(170)
    high.submit(0)
    sim.until(3000)
    assert sim.times(high.take()[0])[1:] == (170, 220)  # the check point is at 170 itself
    assert sim.times(middle.take()[0])[1:] == (110, 420)
    assert sim.times(low.take()[0])[1:] == (0, 720)


def test_06_a_request_that_needs_the_context_of_a_paused_one_lends_it_its_turn(sim):
    slow = sim.client("slow", "rt", *[(4, 100, 20)] * 4, preemptible=True)
    fast = sim.client("fast", "rt", (4, 30, 0), priority=1)
    slow.submit(0)
    sim.until(150)
    fast.submit(0)
    sim.until(160)
    slow.submit(1, deadline_ns=sim.absolute(1000))  # most urgent, but slow's one context is taken
    sim.until(3000)
    done = {d.slot: sim.times(d)[1:] for d in slow.take()}
    assert done == {0: (0, 490), 1: (490, 890)}
    assert sim.times(fast.take()[0])[1:] == (150, 190)


def test_07_a_paused_request_can_expire_and_be_cancelled(sim):
    slow = sim.client("slow", "rt", *[(4, 100, 20)] * 4, preemptible=True)
    other = sim.client("other", "rt", *[(4, 100, 20)] * 4, preemptible=True)
    fast = sim.client("fast", "rt", (4, 1000, 0), priority=1)
    slow.submit(0, deadline_ns=sim.absolute(5000))
    sim.until(50)
    fast.submit(0, deadline_ns=sim.absolute(4000))
    sim.until(100)
    generation = other.submit(0)
    sim.until(200)
    sequence = slow.sq_tail
    slow.write_entry(opcode=1, slot=0, generation=1)
    slow.publish()
    sim.until(210)
    assert slow.cancel_verdict(0, sequence) == 0
    assert sim.times(slow.take()[0])[2] == 200
    assert generation == 1
    sim.until(3000)
    assert sim.times(other.take()[0])[1:] == (1060, 1460)
    assert len(fast.take()) == 1
    slow.submit(0, deadline_ns=sim.absolute(3500))
    sim.until(3050)
    fast.submit(0, deadline_ns=sim.absolute(3400))
    sim.until(6000)
    (done,) = slow.take()
    assert (done.status, sim.times(done)[2]) == (-errno.ETIME, 3500)


def test_08_a_preempted_model_ends_where_its_last_blocks_were_running(sim):
    """The epoch changes when every block that is left has begun and none has a check point before its end."""
    slow = sim.client("slow", "rt", (4, 100, 0), preemptible=True)
    fast = sim.client("fast", "rt", (4, 30, 0), priority=1)
    slow.submit(0)
    sim.until(50)
    fast.submit(0)
    sim.until(1000)
    assert sim.times(slow.take()[0])[2] == 100
    assert sim.times(fast.take()[0])[2] == 130


def test_09_plain_policies_do_not_preempt_real_time():
    for policy in ("streams", "sequential"):
        sim = Simulation(policy=policy)
        slow = sim.client("slow", "rt", *[(4, 100, 20)] * 4, preemptible=True)
        fast = sim.client("fast", "rt", (4, 30, 0), priority=1)
        slow.submit(0)
        sim.until(150)
        fast.submit(0)
        sim.until(2000)
        assert sim.times(fast.take()[0])[1] == 400
        sim.engine.stop(grace_ns=0, keep_sessions=False)


@pytest.mark.parametrize("seed", range(3))
def test_10_real_time_preempted_by_real_time_gives_the_same_bits_on_the_cpu(seed):
    engine = _engine.Engine(device="cpu", workers=2, realtime=False)
    model = engine.load(models.steps())
    data = np.random.default_rng(seed).normal(size=models.SIZE).astype(np.float32)
    expected = np.empty_like(data)
    engine.run(model, [data], [expected])
    short = engine.load(models.steps(size=1024, kernels=2))
    engine.start()
    slow, fast = (
        open_session(
            engine,
            engine.add_task(
                _engine.TaskSpec(
                    name=f"p{priority}", task_class="rt", models=[("steps", of)], slots=8, priority=priority,
                    preemptible=True,
                )
            ),
            priority,
        )
        for priority, of in ((1, model), (2, short))
    )  # fmt: skip
    for slot in range(8):
        slow.input(slot)[: data.nbytes] = data.tobytes()
    preempted, rounds, end = 0, 0, time.monotonic() + 60
    # On a busy machine the slow request may be over before the fast one comes: as many rounds as it takes.
    while rounds < 40 or preempted <= 20:
        assert time.monotonic() < end, f"{preempted} preemptions in {rounds} rounds"
        rounds += 1
        for slot in range(8):
            slow.submit(slot, publish=False)
        slow.publish()
        for slot in range(8):
            fast.submit(slot)
            fast.wait()
        done = slow.wait(8)
        assert [d.status for d in done] == [0] * 8
        preempted += sum(d.preemptions for d in done)
        for slot in range(8):
            assert slow.output(slot)[: data.nbytes] == expected.tobytes()
    engine.stop(grace_ns=0, keep_sessions=False)


# ---------------------------------------------------------------- shielding


def storm(sim, rt, period_us, until_us):
    """A real-time request each period. Returns (arrival, end) of each."""
    slot = 0
    times = []
    at = period_us
    while at < until_us:
        sim.until(at)
        rt.submit(slot)
        slot = (slot + 1) % 8
        at += period_us
        sim.until(at - 1)
        times += [(sim.us(d.accept_ns), sim.us(d.end_ns)) for d in rt.take()]
    return times


def test_11_an_instance_that_is_never_left_alone_still_finishes(sim):
    """Blocks of 1,000 us under a request every 300 us: without shielding none would ever finish."""
    be_task = sim.task("be", "be", sim.model("be", (4, 1000, 10), (4, 100, 10)))
    be = sim.session(be_task)
    rt_task = sim.task("rt", "rt", sim.model("rt", (4, 50, 0)))
    rt = sim.session(rt_task)
    be.submit(0)
    times = storm(sim, rt, 300, 6000)
    (done,) = be.take()
    assert done.status == 0 and sim.blocks_run("be") == {(k, b): 1 for k in (0, 1) for b in range(4)}
    # Eight abandonments, at 300, 600, ... 2400; then its blocks run to their end.
    assert [time for time, _, kernel, block in sim.events("abandon", "be") if (kernel, block) == (0, 0)] == [
        300 * i for i in range(1, 9)
    ]
    assert sim.counters(be_task)["shielded"] == 1
    # One request waited for the rest of those blocks, those that came meanwhile for it; all others for nobody.
    begun = 2450 + 10  # the last request left at 2450; the window was launched then, or a check point later
    late = [(arrived, end) for arrived, end in times if end - arrived > 50 + 10]
    assert late[0][0] == 2700 and late[0][1] <= begun + 1000 + 50
    assert max(end - arrived for arrived, end in times) <= 1000 + 50
    assert sim.counters(rt_task)["behind_shielded"] == 1


def test_12_progress_without_shielding_is_not_counted_as_abandonment(sim):
    """Many short kernels: each preemption finds another instance, so none is shielded."""
    be_task = sim.task("be", "be", sim.model("be", *[(4, 60, 10)] * 40))
    be = sim.session(be_task)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    storm(sim, rt, 300, 6000)
    (done,) = be.take()
    assert done.status == 0 and done.preemptions > 8
    assert sim.counters(be_task)["shielded"] == 0
