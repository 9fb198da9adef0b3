# SPDX-License-Identifier: Apache-2.0
"""Numbered scenarios of the real scheduler over the simulated device: order and times are exact."""

from __future__ import annotations

import errno

import pytest

from libreef._reef import lib

from .simulation import Simulation


def test_01_a_request_alone_takes_what_its_kernels_cost(sim):
    client = sim.client("rt", "rt", (4, 10, 0), (8, 10, 0), (1, 5, 0))
    client.submit(0)
    sim.until(100)
    (done,) = client.take()
    assert done.status == 0
    assert sim.times(done) == (0, 0, 10 + 20 + 5)  # 4 units: 4 blocks at once, 8 in two rounds


def test_02_real_time_preempts_best_effort_at_its_next_check_point(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 10)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    sim.until(150)  # in the middle of the second kernel's blocks
    rt.submit(0)
    sim.until(2000)
    (done,) = rt.take()
    # Blocks of 100 us started at 100; checks at 120, 140, 160: the units are free at 160, not at 200.
    assert sim.times(done) == (150, 150, 210)
    (done,) = be.take()
    assert done.status == 0 and done.preemptions == 1
    # The second kernel's blocks lost 60 us; resumed when real time was done.
    assert sim.times(done) == (0, 0, 210 + 900)


def test_03_finished_blocks_never_run_twice(sim):
    be = sim.client("be", "be", *[(16, 100, 10)] * 4)
    rt = sim.client("rt", "rt", (4, 30, 0), slots=1)
    be.submit(0)
    for i in range(12):
        sim.until(130 * (i + 1))
        rt.submit(0)
        sim.until(130 * (i + 1) + 60)
        assert len(rt.take()) == 1
    sim.until(10_000)
    (done,) = be.take()
    assert done.status == 0 and done.preemptions == 12
    assert set(sim.blocks_run("be").values()) == {1}
    assert len(sim.blocks_run("be")) == 64
    assert len(sim.events("abandon", "be")) <= 12 * 4  # at most one block a unit for each preemption


def test_04_real_time_runs_by_deadline_then_priority_then_arrival(sim):
    model = sim.model("m", (4, 100, 0))
    low = sim.session(sim.task("low", "rt", model, priority=1))
    high = sim.session(sim.task("high", "rt", model, priority=2))
    low.submit(0, user_data=1)  # runs at once
    sim.until(10)
    low.submit(1, user_data=2)
    sim.until(20)
    high.submit(0, user_data=3)
    high.submit(1, user_data=4, deadline_ns=sim.absolute(5000))
    low.submit(2, user_data=5, deadline_ns=sim.absolute(4000))
    low.submit(3, user_data=6)
    sim.until(1000)
    done = sorted(low.take() + high.take(), key=lambda d: d.start_ns)
    assert [(d.user_data, sim.us(d.start_ns)) for d in done] == [
        (1, 0),
        (5, 100),  # deadline 4000
        (4, 200),  # deadline 5000
        (3, 300),  # priority 2
        (2, 400),  # arrived before 6
        (6, 500),
    ]


def test_05_best_effort_shares_by_weight(sim):
    kernels = [(4, 250, 50)] * 8  # 2 ms a request: one window
    heavy = sim.client("heavy", "be", *kernels, weight=300, slots=256)
    light = sim.client("light", "be", *kernels, weight=100, slots=256)
    for slot in range(256):
        heavy.submit(slot)
        light.submit(slot)
    sim.until(320_000)
    ran = [sum(sim.blocks_run(name).values()) for name in ("heavy", "light")]
    assert sum(ran) == 4 * 320_000 // 250  # no unit was idle
    assert ran[0] == pytest.approx(3 * ran[1], rel=0.05)


def test_06_a_task_that_was_away_gets_no_time_back(sim):
    kernels = [(4, 250, 50)] * 8
    first = sim.client("first", "be", *kernels, slots=64)
    second = sim.client("second", "be", *kernels, slots=64)
    for slot in range(64):
        first.submit(slot)
    sim.until(40_000)
    for slot in range(64):
        second.submit(slot)
    before = sum(sim.blocks_run("first").values())
    sim.until(80_000)
    ran = [sum(sim.blocks_run("first").values()) - before, sum(sim.blocks_run("second").values())]
    assert sum(ran) == 4 * 40_000 // 250
    assert abs(ran[0] - ran[1]) <= 2 * 32  # a window


def test_07_best_effort_requests_run_side_by_side(sim):
    clients = [sim.client(f"be{i}", "be", *[(1, 100, 20)] * 5) for i in range(4)]
    for client in clients:
        client.submit(0)
    sim.until(500)
    # Each kernel has one block: four requests fill four units.
    assert [sim.times(done)[2] for client in clients for done in client.take()] == [500] * 4
    assert {queue for _, queue, _, _ in sim.events("launch")} == {1, 2, 3, 4}


def test_08_expired_in_the_queue_and_late(sim):
    rt = sim.client("rt", "rt", (4, 1000, 0), deadline_ns=1_500_000)
    for slot in range(3):
        rt.submit(slot)
    sim.until(10_000)
    first, expired, late = sorted(rt.take(), key=lambda d: d.end_ns)
    assert (first.status, first.flags, sim.times(first)[2]) == (0, 0, 1000)
    assert (expired.status, expired.start_ns, sim.times(expired)[2]) == (-errno.ETIME, 0, 1500)
    assert (late.status, late.flags, sim.times(late)[2]) == (0, lib.REEF_CQE_LATE, 2000)


def test_09_a_paused_best_effort_request_expires(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 5)
    rt = sim.client("rt", "rt", (4, 1000, 0))
    be.submit(0, deadline_ns=sim.absolute(600))
    sim.until(150)
    rt.submit(0)
    sim.until(3000)
    (done,) = be.take()
    assert (done.status, sim.times(done)[2]) == (-errno.ETIME, 600)
    (done,) = rt.take()
    assert sim.times(done)[2] == 1160


def test_10_a_running_best_effort_request_finishes_late(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 5)
    be.submit(0, deadline_ns=sim.absolute(250))
    sim.until(1000)
    (done,) = be.take()
    assert (done.status, done.flags, sim.times(done)[2]) == (0, lib.REEF_CQE_LATE, 500)


def test_11_cancel_queued_running_and_done(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 5, contexts=1)
    running = be.submit(0)
    queued = be.submit(1)
    sim.until(150)
    sequences = [be.sq_tail, be.sq_tail + 1]
    be.write_entry(opcode=lib.REEF_OP_CANCEL, slot=1, generation=queued)
    be.write_entry(opcode=lib.REEF_OP_CANCEL, slot=0, generation=running)
    be.publish()
    sim.until(151)
    assert [be.cancel_verdict(1, sequences[0]), be.cancel_verdict(0, sequences[1])] == [0, 0]
    sim.until(1000)
    done = {d.slot: d for d in be.take()}
    assert (done[1].status, sim.times(done[1])[2]) == (-errno.ECANCELED, 150)
    assert (done[0].status, sim.times(done[0])[2]) == (-errno.ECANCELED, 160)  # left at its check point
    sequence = be.sq_tail
    be.write_entry(opcode=lib.REEF_OP_CANCEL, slot=0, generation=running)
    be.write_entry(opcode=lib.REEF_OP_CANCEL, slot=1, generation=queued + 1)
    be.publish()
    sim.until(1001)
    assert be.cancel_verdict(0, sequence) == -errno.EALREADY
    assert be.cancel_verdict(1, sequence + 1) == -errno.ENOENT


def test_12_running_real_time_is_not_cancelled(sim):
    rt = sim.client("rt", "rt", (4, 100, 0))
    generation = rt.submit(0)
    sim.until(50)
    sequence = rt.sq_tail
    rt.write_entry(opcode=lib.REEF_OP_CANCEL, slot=0, generation=generation)
    rt.publish()
    sim.until(60)
    assert rt.cancel_verdict(0, sequence) == -errno.EALREADY
    sim.until(200)
    (done,) = rt.take()
    assert done.status == 0


def test_13_latest_replaces_the_oldest_that_did_not_start(sim):
    rt = sim.client("rt", "rt", (4, 100, 0))
    for slot in range(4):
        rt.submit(slot, flags=lib.REEF_SQE_LATEST)
        sim.until(10 * (slot + 1))
    sim.until(1000)
    done = {d.slot: d.status for d in rt.take()}
    assert done == {0: 0, 1: -errno.ECANCELED, 2: -errno.ECANCELED, 3: 0}


def test_14_announced_work_finds_the_device_empty(sim):
    be = sim.client("be", "be", *[(4, 100, 80)] * 50)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    sim.until(110)
    rt.announce()
    sim.until(400)
    rt.submit(0)
    sim.until(10_000)
    (done,) = rt.take()
    assert sim.times(done) == (400, 400, 450)
    (done,) = be.take()
    assert sim.times(done)[2] == 450 + 4900
    # The device is told what comes, and when it is there.
    assert [(time, us) for time, _, _, us in sim.events("expect", "rt")] == [(110, 5000)]
    assert [(time, us) for time, _, _, us in sim.events("expect", "")] == [(400, 0)]


def test_15_an_announcement_expires_and_is_budgeted(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 1000)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    for i in range(200):  # one each millisecond, and never a request
        sim.until(1000 * (i + 1))
        rt.announce()
    sim.until(300_000)
    (done,) = be.take()
    # 100 ms of work; ten holds of 5 ms at once, then a fifth of the time.
    assert done.status == 0
    assert 160_000 < sim.times(done)[2] < 210_000


def test_16_several_models_of_one_task(sim):
    task = sim.task("pair", "be", sim.model("a", (4, 100, 20)), sim.model("b", (4, 300, 20)))
    client = sim.session(task)
    client.submit(0, model=1)
    client.submit(1, model=0)
    sim.until(1000)
    assert sorted((d.slot, sim.times(d)[2]) for d in client.take()) == [(0, 300), (1, 400)]


def test_17_a_detached_session_waits_for_the_device(sim):
    rt = sim.client("rt", "rt", (4, 1000, 0))
    rt.submit(0)
    rt.submit(1)
    sim.until(100)
    sim.engine.detach(session_id=1, code=0)
    sim.until(500)
    assert [event.kind for event in sim.engine.poll_events()] == []
    done = {d.slot: d for d in rt.take()}
    assert (done[1].status, sim.times(done[1])[2]) == (-errno.ECANCELED, 100)
    sim.until(1100)
    assert [event.kind for event in sim.engine.poll_events()] == ["detached"]
    (done,) = rt.take()
    assert (done.slot, done.status, sim.times(done)[2]) == (0, -errno.ECANCELED, 1000)


def test_18_a_flood_of_best_effort_does_not_delay_real_time(sim):
    floods = [sim.client(f"be{i}", "be", (1, 10, 5), slots=512) for i in range(4)]
    rt = sim.client("rt", "rt", (4, 50, 0))
    for client in floods:
        for slot in range(512):
            client.submit(slot, publish=False)
        client.publish()
    sim.until(5000)
    rt.submit(0)
    sim.until(60_000)
    (done,) = rt.take()
    assert sim.times(done)[1] == 5000 and sim.times(done)[2] <= 5055
    assert sum(len(client.take()) for client in floods) == 2048


def test_19_the_cost_of_kernels_is_learned_and_windows_follow(sim):
    be = sim.client("be", "be", *[(4, 1000, 20)] * 12, slots=1)
    be.submit(0)
    sim.until(20_000)
    be.take()
    be.submit(0)
    sim.until(40_000)
    windows = [(last - first) for _, _, first, last in sim.events("launch", "be")]
    assert windows[:2] == [8, 4]  # nothing known: eight kernels
    assert set(windows[2:]) == {2}  # 1 ms each, 2 ms a window


@pytest.mark.parametrize(
    ("kernel_us", "windows"),
    [
        (10, [4, 4, 4]),
        (180, [4, 4, 4]),  # a graph of little more than half a millisecond is still one window
        (200, [2] * 6),  # one of 800 us is not
        (1000, [1] * 12),
    ],
)
def test_19_a_window_is_a_graph_or_a_part_of_one(simulate, kernel_us, windows):
    sim = simulate(device="simulated graphs")
    be = sim.client("be", "be", *[(4, kernel_us, 20)] * 12, slots=1)
    for until in (20_000, 40_000):
        be.submit(0)
        sim.until(until)
        be.take()
    learned = [(first, last) for _, _, first, last in sim.events("launch", "be")][-len(windows) :]
    assert learned[0][0] == 0 and [last - first for first, last in learned] == windows


def test_19_a_device_says_how_many_windows_its_queues_should_have(simulate):
    sim = simulate(device="simulated graphs")
    be = sim.client("be", "be", *[(4, 1, 0)] * 24, slots=1)
    be.submit(0)
    sim.until(20_000)
    be.take()
    be.submit(0)
    sim.until(20_001)
    # Six windows of 4 us; the time in flight would allow all of them.
    assert [first for time, _, first, _ in sim.events("launch", "be") if time == 20_000] == [0, 4]


def test_20_preemption_latency_is_recorded(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 10)
    task = sim.task("rt", "rt", sim.model("rt", (4, 50, 0)))
    rt = sim.session(task)
    be.submit(0)
    sim.until(150)
    rt.submit(0)
    sim.until(2000)
    preemption = sim.counters(task)["preemption"]
    assert (preemption["count"], preemption["max_ns"]) == (1, 10_000)


def test_21_an_announcement_without_a_request_ends_at_its_bound(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 100)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    sim.until(110)
    rt.announce()
    sim.until(30_000)
    (done,) = be.take()
    # 20 us of a block are lost, the device is empty from 120 on, and 5 ms after the announcement all goes on.
    assert sim.events("abandon", "be")[0][0] == 120
    assert not [time for time, *_ in sim.events("launch", "be") if 110 <= time < 5110]
    assert sim.times(done)[2] == 5110 + 9_900
    assert [(time, us) for time, _, _, us in sim.events("expect")] == [(110, 5000), (5110, 0)]


def test_22_announcements_of_several_sessions_hold_until_the_last_one(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 200)
    model = sim.model("rt", (4, 50, 0))
    first, second = (sim.session(sim.task(name, "rt", model)) for name in ("first", "second"))
    be.submit(0)
    sim.until(110)
    first.announce()
    sim.until(200)
    second.announce()
    sim.until(1000)
    second.submit(0)  # it was the later one; the first is still to come
    sim.until(2000)
    first.submit(0)
    sim.until(40_000)
    assert [sim.times(done) for done in second.take()] == [(1000, 1000, 1050)]
    assert [sim.times(done) for done in first.take()] == [(2000, 2000, 2050)]
    assert not [time for time, *_ in sim.events("launch", "be") if 110 <= time < 2050]
    assert sim.times(be.take()[0])[2] == 2050 + 19_900


def test_23_a_session_that_leaves_takes_its_announcement_with_it(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 100)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    sim.until(110)
    rt.announce()
    sim.until(200)
    sim.engine.detach(session_id=2, code=0)
    sim.until(30_000)
    assert sim.times(be.take()[0])[2] == 200 + 9_900


def test_24_a_flood_of_announcements_leaves_half_of_the_time(sim):
    """Twenty sessions, each within its own share, that announce all the time and never submit."""
    be = sim.client("be", "be", *[(4, 100, 20)] * 4000)
    model = sim.model("rt", (4, 50, 0))
    sessions = [sim.session(sim.task(f"rt{i}", "rt", model)) for i in range(20)]
    be.submit(0)
    for i in range(2000):
        sim.until(500 * (i + 1))
        sessions[i % 20].announce()
    sim.until(3_000_000)
    (done,) = be.take()
    assert done.status == 0
    # 400 ms of work. The rest is held: half of the time, and at once what can be saved up, 50 ms.
    held = sim.times(done)[2] - 400_000
    assert (400_000 + held) / 2 < held < (400_000 + held) / 2 + 50_000


@pytest.mark.parametrize("policy", ["reef", "reset"])
def test_25_best_effort_keeps_the_half_that_real_time_leaves(policy):
    """Real-time work on the whole device for 990 us of every 2 ms; blocks of 40 us, as networks have them."""
    sim = Simulation(policy=policy)
    be = sim.client("be", "be", *[(10, 40, 8)] * 60, slots=4)
    rt = sim.client("rt", "rt", (4, 990, 0))
    for slot in range(4):
        be.submit(slot)
    periods = 100
    for period in range(periods):
        sim.until(2000 * period + 1007)  # never in step with the blocks
        rt.submit(0)
        sim.until(2000 * (period + 1) + 7)
        assert [done.status for done in rt.take()] == [0]
        for done in be.take():
            be.submit(done.slot)
    useful = 40 * len([time for time, *_ in sim.events("block", "be") if time <= 2000 * periods])
    sim.engine.stop(grace_ns=0, keep_sessions=False)
    # Lost: a block of each unit for each preemption, on average half of one, and what the last blocks of kernels leave
    # idle, which is 2 of 12 places for 10 blocks on 4 units where a request runs alone.
    assert useful / (4 * 1010 * periods) > 0.98


def test_26_a_deadline_passes_in_time_whatever_others_wait_for(sim):
    """Each expires at its own deadline, not when one that was looked at before it does. Two run, the others wait."""
    be = sim.client("be", "be", (4, 5000, 0))
    for slot, deadline in enumerate((0, 0, 3000, 1000, 2000)):
        be.submit(slot, deadline_ns=sim.absolute(deadline) if deadline else 0)
    sim.until(11_000)
    assert [(d.slot, d.status, sim.times(d)[2]) for d in be.take()] == [
        (3, -errno.ETIME, 1000),
        (4, -errno.ETIME, 2000),
        (2, -errno.ETIME, 3000),
        (0, 0, 5000),
        (1, 0, 10_000),
    ]
