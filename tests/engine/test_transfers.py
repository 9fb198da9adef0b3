# SPDX-License-Identifier: Apache-2.0
"""Best-effort tensors that take their time: a request begins when its inputs have come, is complete when its outputs
have, and its memory is let go only when nothing reads or writes it. Pieces take 10 us, two are in flight."""

from __future__ import annotations

import errno

import pytest

from libreef._reef import lib

from .simulation import Simulation


def test_inputs_then_kernels_then_outputs(sim):
    be = sim.client("be", "be", (4, 100, 20), fetch=3, deliver=5)
    be.submit(0)
    sim.until(1000)
    (done,) = be.take()
    assert done.status == 0 and sim.times(done) == (0, 0, 30 + 100 + 50)
    assert [time for time, *_ in sim.events("fetch")] == [0, 0, 10]
    assert [time for time, *_ in sim.events("deliver")] == [130, 130, 140, 150, 160]


def test_others_run_meanwhile(sim):
    """The device does not wait for tensors: the second request has it while the first one's outputs go."""
    be = sim.client("be", "be", (4, 100, 20), deliver=8)
    for slot in range(3):
        be.submit(slot)
    sim.until(1000)
    assert [sim.times(done)[2] for done in be.take()] == [180, 280, 380]
    assert [time for time, *_ in sim.events("retire")] == [100, 200, 300]


def test_requests_take_turns(sim):
    """What has one piece to go does not wait for what has forty."""
    large = sim.client("large", "be", (4, 100, 20), deliver=40)
    small = sim.client("small", "be", (4, 100, 20), deliver=1)
    large.submit(0)
    small.submit(0)
    sim.until(2000)
    (done,) = small.take()
    assert sim.times(done)[2] == 230  # at 200 it is behind the two pieces in flight
    (done,) = large.take()
    assert sim.times(done)[2] == 100 + 410


@pytest.mark.parametrize("policy", ["reef", "reset", "wait", "sequential"])
def test_held_while_real_time_work_is_there(simulate, policy):
    sim = simulate(policy)
    be = sim.client("be", "be", (4, 100, 20), deliver=6)
    rt = sim.client("rt", "rt", (4, 300, 0))
    be.submit(0)
    sim.until(115)
    rt.submit(0)
    sim.until(1000)
    (done,) = rt.take()
    assert sim.times(done) == (115, 115, 415)
    # Pieces at 100, 100 and 110 had begun; the rest follows.
    assert [time for time, *_ in sim.events("deliver")] == [100, 100, 110, 415, 415, 425]
    (done,) = be.take()
    assert done.status == 0 and done.preemptions == 0 and sim.times(done)[2] == 445


def test_held_while_announced(sim):
    be = sim.client("be", "be", (4, 100, 20), deliver=4)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    sim.until(50)
    rt.announce()
    sim.until(51)
    rt.submit(0)
    sim.until(90)
    assert be.take() == []
    sim.until(101 + 400)
    (done,) = be.take()
    assert done.status == 0 and min(time for time, *_ in sim.events("deliver")) > 101


def test_suspended_best_effort_still_gets_what_it_computed(sim):
    """The ladder's last step keeps kernels away; outputs wait for real-time work alone."""
    pieces = 60_000  # 600 ms, and 100 us of each millisecond are real time's
    be = sim.client("be", "be", (4, 100, 20), deliver=pieces)
    rt = sim.session(sim.task("rt", "rt", sim.model("rt", (4, 100, 0)), bounds_ns=(0, 0, 0, 50_000)))
    be.submit(0)
    be.submit(1)
    for number in range(605):
        sim.until(1000 * (number + 1))
        rt.submit(0)
        sim.until(1000 * (number + 1) + 500)
        assert len(rt.take()) == 1
    assert sim.engine.snapshot()["ladder"] == 3 and be.take() == []
    sim.until(1_400_000)
    assert sim.engine.snapshot()["ladder"] == 3
    assert [done.status for done in be.take()] == [0, 0] and len(sim.events("deliver")) == 2 * pieces


def test_cancelled_while_outputs_go(sim):
    be = sim.client("be", "be", (4, 100, 20), deliver=6)
    generation = be.submit(0)
    sim.until(115)
    be.write_entry(opcode=lib.REEF_OP_CANCEL, slot=0, generation=generation)
    be.publish()
    sim.until(117)
    assert be.take() == []  # two pieces are in flight
    sim.until(1000)
    (done,) = be.take()
    assert done.status == -errno.ECANCELED and sim.times(done)[2] == 130
    assert len(sim.events("deliver")) == 3
    be.submit(0)  # the context serves again, from the first piece on
    sim.until(2000)
    (done,) = be.take()
    assert done.status == 0 and len(sim.events("deliver")) == 3 + 6


def test_cancelled_while_its_outputs_are_held(sim):
    be = sim.client("be", "be", (4, 100, 20), deliver=6)
    rt = sim.client("rt", "rt", (4, 300, 0))
    generation = be.submit(0)
    sim.until(115)
    rt.submit(0)
    sim.until(200)
    be.write_entry(opcode=lib.REEF_OP_CANCEL, slot=0, generation=generation)
    be.publish()
    sim.until(201)
    (done,) = be.take()
    assert done.status == -errno.ECANCELED
    sim.until(1000)
    assert len(sim.events("deliver")) == 3


def test_a_deadline_that_passes_while_outputs_go_makes_it_late(sim):
    """It is not waiting any more, like one whose last window runs."""
    be = sim.client("be", "be", (4, 100, 20), deliver=6)
    be.submit(0, deadline_ns=sim.absolute(120))
    sim.until(1000)
    (done,) = be.take()
    assert done.status == 0 and done.flags & lib.REEF_CQE_LATE and sim.times(done)[2] == 160


def test_a_deadline_that_passes_while_inputs_come_ends_it(sim):
    be = sim.client("be", "be", (4, 100, 20), fetch=10)
    be.submit(0, deadline_ns=sim.absolute(25))
    sim.until(1000)
    (done,) = be.take()
    assert done.status == -errno.ETIME and sim.times(done)[2] == 40  # the pieces begun at 20 and 10 have landed
    assert sim.events("launch") == []


def detached(sim):
    return [event.session for event in sim.engine.poll_events() if event.kind == "detached"]


@pytest.mark.parametrize("at", [5, 115])
def test_a_client_that_dies_keeps_its_memory_until_pieces_have_landed(sim, at):
    be = sim.client("be", "be", (4, 100, 20), fetch=2, deliver=6)
    other = sim.client("other", "be", (4, 100, 20), fetch=2, deliver=6)
    be.submit(0)
    sim.until(at + 20 if at > 100 else at)
    other.submit(0)
    sim.engine.detach(session_id=1, code=0)
    assert detached(sim) == []
    sim.until(at + 50)
    assert detached(sim) == [1]
    sim.until(1000)
    (done,) = other.take()
    assert done.status == 0


def test_preempted_with_its_last_kernel_done(sim):
    """Nothing is sent twice, and nothing before all is done."""
    be = sim.client("be", "be", (4, 100, 20), (8, 100, 20), deliver=3)
    rt = sim.client("rt", "rt", (4, 30, 0))
    be.submit(0)
    for i in range(5):
        sim.until(150 + 60 * i)
        rt.submit(i)
    sim.until(3000)
    (done,) = be.take()
    assert done.status == 0 and done.preemptions == 5
    assert len(rt.take()) == 5
    last = max(time for time, *_ in sim.events("retire", "be"))
    deliveries = [time for time, *_ in sim.events("deliver")]
    assert len(deliveries) == 3 and min(deliveries) >= last


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("grace_us", [0, 1000])
def test_stopped_while_outputs_go(keep, grace_us):
    sim = Simulation()
    be = sim.client("be", "be", (4, 100, 20), deliver=6)
    be.submit(0)
    sim.until(115)
    counts = sim.engine.stop(grace_ns=grace_us * 1000, keep_sessions=keep)
    if grace_us or keep:  # what is computed is handed over in the little time that it takes
        assert counts == {"finished": 1, "failed": 0, "kept": 0}
        assert [done.status for done in be.take()] == [0]
    else:
        assert counts == {"finished": 0, "failed": 1, "kept": 0}
        assert [done.status for done in be.take()] == [-errno.ESHUTDOWN]


def test_stopped_while_inputs_come():
    sim = Simulation()
    be = sim.client("be", "be", (4, 100, 20), fetch=50)
    be.submit(0)
    sim.until(115)
    assert sim.engine.stop(grace_ns=0, keep_sessions=True) == {"finished": 0, "failed": 0, "kept": 1}
    assert be.take() == [] and len(sim.events("launch")) == 0
    # It did not end before the last piece that it had begun, and with that all that followed.
    assert len(sim.events("fetch")) + sum(what == "fetch" for _, what, *_ in sim.engine.trace()) == 50


def test_real_time_tensors_go_with_their_windows(sim):
    rt = sim.client("rt", "rt", (4, 50, 0), fetch=5, deliver=5)
    rt.submit(0)
    sim.until(500)
    (done,) = rt.take()
    assert sim.times(done) == (0, 0, 50) and sim.events("fetch") == [] and sim.events("deliver") == []


def test_preemptible_real_time_outputs_go_first(sim):
    """And are not held by what comes after: only a request that runs or waits is real-time work for the device."""
    slow = sim.client("slow", "rt", (4, 100, 20), deliver=6, preemptible=True)
    be = sim.client("be", "be", (4, 100, 20), deliver=6)
    fast = sim.client("fast", "rt", (4, 300, 0), priority=2)
    be.submit(0)
    sim.until(105)
    slow.submit(0)
    sim.until(206)
    fast.submit(0)
    sim.until(2000)
    (done,) = slow.take()
    assert done.status == 0 and sim.times(done)[2] == 265
    assert sim.times(fast.take()[0]) == (206, 206, 506)
    (done,) = be.take()
    assert done.status == 0 and sim.times(done)[2] > 506


def test_a_running_real_time_request_is_too_late_to_cancel_while_its_outputs_go(sim):
    rt = sim.client("rt", "rt", (4, 100, 20), deliver=6, preemptible=True)
    generation = rt.submit(0)
    sim.until(115)
    rt.write_entry(opcode=lib.REEF_OP_CANCEL, slot=0, generation=generation)
    rt.publish()
    sim.until(1000)
    (done,) = rt.take()
    assert done.status == 0 and sim.times(done)[2] == 160


def test_a_dead_client_of_preemptible_real_time_work(sim):
    rt = sim.client("rt", "rt", (4, 100, 20), deliver=60, preemptible=True)
    rt.submit(0)
    sim.until(115)
    sim.engine.detach(session_id=1, code=0)
    sim.until(135)
    assert detached(sim) == [1] and len(sim.events("deliver")) == 3
