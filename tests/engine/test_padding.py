# SPDX-License-Identifier: Apache-2.0
"""Best-effort work on the compute units that a real-time model leaves idle; times are exact to the nanosecond."""

from __future__ import annotations

import numpy as np
import pytest

from reefd import _engine
from tests import until_some

from . import models
from .regions import open_session
from .simulation import US, Simulation


def plan(*segments: tuple[int, int], kernel_us: tuple[float, ...] = ()) -> list[_engine.Profile]:
    return [_engine.Profile(kernel_ns=[round(us * US) for us in kernel_us], padding=segments)]


def busy_us(sim: Simulation, model: str, begin: float, end: float, block_us: float) -> float:
    """The time that blocks of the model, each `block_us` long and finished, had in [begin, end]."""
    return sum(max(0.0, min(end, time) - max(begin, time - block_us)) for time, *_ in sim.events("block", model))


def test_01_best_effort_runs_beside_a_model_that_leaves_units_idle(simulate):
    sim = simulate()
    be = sim.client("be", "be", *[(4, 100, 20)] * 20)
    rt = sim.client("rt", "rt", (2, 1000, 0), profiles=plan((1, 2)))
    be.submit(0)
    sim.until(150)
    rt.submit(0)
    sim.until(5000)
    # Two units are free at 160; the model takes them and never sees the others.
    assert sim.times(rt.take()[0]) == (150, 150, 1160)
    # The units that it leaves idle work all the time: two blocks in each 100 us.
    assert busy_us(sim, "be", 160, 1160, 100) == 2 * 1000
    launches = [(time, first, last) for time, _, first, last in sim.events("launch", "be")]
    assert launches[:3] == [(0, 0, 8), (0, 8, 16), (160, 1, 2)]  # on the split, a window is at most 250 us by estimate


def test_02_units_beside_follow_the_segments_of_the_plan(simulate):
    """60 compute units: beside three segments of 1 ms each, 40, none and 20 units."""
    sim = simulate(units=60)
    be = sim.client("be", "be", (60 * 200, 50, 10), profiles=plan(kernel_us=(10_000,)))
    rt = sim.client("rt", "rt", (20, 1000, 0), (60, 1000, 0), (40, 1000, 0), profiles=plan((1, 40), (2, 0), (3, 20)))
    be.submit(0)
    sim.until(500)
    rt.submit(0)
    sim.until(20_000)
    # The first segment begins at 500 (a block's end, so that nothing is lost), the second one at 1500 on the 20 units
    # of the first, and on the 40 others when best-effort blocks have left them: at their end, 1500, too.
    assert sim.times(rt.take()[0]) == (500, 500, 3500)
    assert busy_us(sim, "be", 500, 1500, 50) == 40 * 1000
    assert busy_us(sim, "be", 1500, 2500, 50) == 0
    assert busy_us(sim, "be", 2500, 3500, 50) == 20 * 1000
    assert busy_us(sim, "be", 3500, 4500, 50) == 60 * 1000
    assert set(sim.blocks_run("be").values()) == {1}


def test_03_a_segment_that_needs_the_units_back_waits_at_most_for_a_check_point(simulate):
    sim = simulate()
    be = sim.client("be", "be", (4000, 300, 25))
    rt = sim.client("rt", "rt", (2, 1010, 0), (4, 1000, 0), profiles=plan((1, 2), (2, 0)))
    be.submit(0)
    rt.submit(0)
    sim.until(10_000)
    # Blocks on the split begun at 900 leave at 1025, their first check point after 1010.
    (done,) = rt.take()
    assert sim.times(done) == (0, 0, 2025)
    assert len([1 for time, *_ in sim.events("abandon", "be") if time == 1025]) == 2


def test_04_short_windows_keep_their_units_until_their_mark(simulate):
    sim = simulate()
    be = sim.client("be", "be", *[(4, 50, 20)] * 60, profiles=plan(kernel_us=(50,) * 60))
    rt = sim.client("rt", "rt", (2, 310, 0), profiles=plan((1, 2)))
    rt.submit(0)
    be.submit(0)
    sim.until(20_000)
    assert sim.times(rt.take()[0])[2] == 310
    # On two units a kernel takes 100 us, so a window has two (250 us), and three are in flight when the model ends.
    masked = [(time, last) for time, _, first, last in sim.events("launch", "be") if last - first == 2]
    assert [last for _, last in masked] == [2, 4, 6, 8]
    retired = {last: time for time, _, first, last in sim.events("retire", "be")}
    assert [retired[last] for _, last in masked] == [200, 400, 600, 800]
    wide = next((time, first) for time, _, first, last in sim.events("launch", "be") if last - first > 2)
    assert wide == (310, 8)  # queued at once, begun at the mark
    assert sim.times(be.take()[0])[2] == 800 + 52 * 50
    assert sim.events("abandon") == []


def test_04_a_long_window_is_launched_again_on_all_units(simulate):
    sim = simulate()
    be = sim.client("be", "be", (4000, 100, 20), profiles=plan(kernel_us=(100_000,)))
    rt = sim.client("rt", "rt", (2, 310, 0), profiles=plan((1, 2)))
    rt.submit(0)
    be.submit(0)
    sim.until(1000)
    assert len(sim.events("abandon")) == 2  # at 320, 20 us after their begin
    assert busy_us(sim, "be", 320, 920, 100) == 4 * 600


def test_05_only_the_split_counts_for_the_next_model(simulate):
    """Two models in a row with the same split: best-effort work beside them is not disturbed in between."""
    sim = simulate()
    be = sim.client("be", "be", (1000, 100, 20))
    rt = sim.client("rt", "rt", (2, 500, 0), profiles=plan((1, 2)))
    rt.submit(0)
    rt.submit(1)
    be.submit(0)
    sim.until(2000)
    assert [sim.times(done)[2] for done in rt.take()] == [500, 1000]
    assert sim.events("abandon") == []
    assert busy_us(sim, "be", 0, 1000, 100) == 2 * 1000


def test_06_a_shielded_instance_finishes_on_the_split(simulate):
    """Blocks of 1 ms that are preempted every 300 us; the model leaves one unit aside, and there they finish."""
    sim = simulate()
    be = sim.client("be", "be", (2, 1000, 10))
    rt_task = sim.task("rt", "rt", sim.model("rt", (3, 250, 0)), profiles=plan((1, 1)))
    rt = sim.session(rt_task)
    be.submit(0)
    for i in range(1, 30):
        sim.until(300 * i)
        rt.submit(0)
        sim.until(300 * i + 290)
        (done,) = rt.take()
        assert sim.us(done.end_ns - done.start_ns + sim._start_ns) <= 250 + 10
    (done,) = be.take()
    assert done.status == 0


def test_07_no_split_while_real_time_is_only_announced(simulate):
    sim = simulate()
    be = sim.client("be", "be", *[(4, 100, 20)] * 50)
    rt = sim.client("rt", "rt", (2, 300, 0), profiles=plan((1, 2)))
    be.submit(0)
    sim.until(110)
    rt.announce()
    sim.until(400)
    assert busy_us(sim, "be", 120, 400, 100) == 0
    rt.submit(0)
    sim.until(700)
    assert sim.times(rt.take()[0]) == (400, 400, 700)
    assert busy_us(sim, "be", 400, 700, 100) == 2 * 300


@pytest.mark.parametrize("policy", ["reset", "wait"])
def test_08_other_policies_do_not_pad(simulate, policy):
    sim = simulate(policy=policy)
    be = sim.client("be", "be", *[(4, 100, 20)] * 50)
    rt = sim.client("rt", "rt", (2, 300, 0), profiles=plan((1, 2)))
    be.submit(0)
    rt.submit(0)
    sim.until(400)
    assert busy_us(sim, "be", 100, 300, 100) == 0


def test_09_a_model_that_gives_way_keeps_its_plan(simulate):
    sim = simulate()
    be = sim.client("be", "be", (1000, 100, 20))
    slow = sim.client("slow", "rt", *[(2, 100, 20)] * 4, preemptible=True, profiles=plan((2, 1), (4, 2)))
    fast = sim.client("fast", "rt", (4, 50, 0), priority=1)
    slow.submit(0)
    be.submit(0)
    sim.until(150)
    fast.submit(0)
    sim.until(10_000)
    assert sim.times(fast.take()[0])[1:] == (150, 210)
    (done,) = slow.take()
    assert sim.times(done)[2] == 210 + 300
    assert busy_us(sim, "be", 0, 100, 100) == 100
    assert busy_us(sim, "be", 160, 210, 100) == 0
    assert busy_us(sim, "be", 310, 510, 100) == 2 * 200


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"kernel_ns": [1]}, "times of 1 kernels, the model has 2"),
        ({"padding": [(1, 1)]}, "the plan ends at kernel 1"),
        ({"padding": [(1, 1), (1, 0)]}, "ends at kernel 1, the one before at 1"),
        ({"padding": [(3, 1)]}, "ends at kernel 3"),
        ({"padding": [(2, 4)]}, "4 compute units beside the model, the device has 4"),
    ],
)
def test_10_a_profile_that_does_not_fit_is_refused(simulate, profile, reason):
    sim = simulate()
    with pytest.raises(_engine.EngineError, match=reason):
        sim.task("rt", "rt", sim.model("rt", (4, 1, 0), (4, 1, 0)), profiles=[_engine.Profile(**profile)])


def test_11_windows_are_sized_by_the_profile_from_the_first_one_on(simulate):
    sim = simulate()
    be = sim.client("be", "be", *[(4, 1000, 20)] * 12, profiles=plan(kernel_us=(1000,) * 12))
    be.submit(0)
    sim.until(20_000)
    assert {last - first for _, _, first, last in sim.events("launch", "be")} == {2}
    # Two windows at once: 4 ms in flight, never more.
    in_flight, most = 0, 0
    for _, kind, *_ in sim.trace:
        in_flight += (kind == "launch") - (kind == "retire")
        most = max(most, in_flight)
    assert most == 2


def test_12_short_requests_may_be_many_in_flight(simulate):
    """Time is what is bounded, not the count."""
    sim = simulate()
    clients = [
        sim.client(f"be{i}", "be", (4, 50, 20), slots=64, contexts=16, profiles=plan(kernel_us=(50,))) for i in range(4)
    ]
    for client in clients:
        for slot in range(64):
            client.submit(slot, publish=False)
        client.publish()
    sim.until(1)
    launched = len(sim.events("launch"))
    assert launched * 50 >= 1500 and launched <= 4000 // 50


# ---------------------------------------------------------------- the CPU device


@pytest.mark.parametrize("workers", [2, 3])
def test_13_best_effort_is_answered_beside_a_real_time_model_and_both_have_the_same_bits(workers):
    engine = _engine.Engine(device="cpu", workers=workers, realtime=False)
    long = engine.load(models.steps(kernels=200))
    short = engine.load(models.steps(kernels=8))
    data = np.random.default_rng(workers).normal(size=models.SIZE).astype(np.float32)
    expected = {}
    for model in (long, short):
        expected[model] = np.empty_like(data)
        engine.run(model, [data], [expected[model]])
    engine.start()
    # Three segments: one worker for best effort, none, one.
    profile = _engine.Profile(padding=[(120, 1), (130, 0), (200, 1)])
    rt_task = engine.add_task(
        _engine.TaskSpec(name="rt", task_class="rt", models=[("steps", long)], slots=2, profiles=[profile])
    )
    be_task = engine.add_task(_engine.TaskSpec(name="be", task_class="be", models=[("steps", short)], slots=4))
    rt, be = open_session(engine, rt_task, 1), open_session(engine, be_task, 2)
    for client, slots in ((rt, 2), (be, 4)):
        for slot in range(slots):
            client.input(slot)[: data.nbytes] = data.tobytes()

    def beside() -> int:
        """How many best-effort requests were answered while a real-time one ran."""
        rt.submit(0)
        for slot in range(4):
            be.submit(slot)
        (slow,) = rt.wait(1)
        quick = be.wait(4)
        assert slow.status == 0 and [done.status for done in quick] == [0] * 4
        assert rt.output(0)[: data.nbytes] == expected[long].tobytes()
        for slot in range(4):
            assert be.output(slot)[: data.nbytes] == expected[short].tobytes()
        return sum(slow.start_ns < done.start_ns and done.end_ns < slow.end_ns for done in quick)

    for _ in range(9):
        beside()
    until_some(beside, "request answered beside real time")
    engine.stop(grace_ns=0, keep_sessions=False)
