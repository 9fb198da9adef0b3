# SPDX-License-Identifier: Apache-2.0
"""Promised latencies in simulated time: what breaks them costs best-effort work, step by step, and comes back."""

from __future__ import annotations

from .simulation import Simulation

MS = 1000  # microseconds


def bounded(sim: Simulation, name: str = "rt", *, end_to_end_us: int, budget: float = 0.0, **bounds: int):
    """A real-time task that takes 100 us and promises less, or more."""
    task = sim.task(
        name, "rt", sim.model(name, (4, 100, 0)), bounds_ns=(0, 0, 0, end_to_end_us * 1000), budget=budget, **bounds
    )
    return task, sim.session(task)


def requests(sim: Simulation, client, count: int, start_us: float, every_us: float = 1000) -> float:
    """One after the other; the time after the last."""
    for number in range(count):
        sim.until(start_us + number * every_us)
        slot = number % 8
        client.submit(slot)
        sim.until(start_us + number * every_us + 500)
        assert len(client.take()) == 1
    return start_us + count * every_us


def ladder(sim: Simulation) -> tuple[int, int, int]:
    snapshot = sim.engine.snapshot()
    return snapshot["ladder"], snapshot["ladder_down"], snapshot["ladder_up"]


def test_a_kept_bound_changes_nothing(sim):
    _, client = bounded(sim, end_to_end_us=200)
    requests(sim, client, 50, 0)
    assert ladder(sim) == (0, 0, 0)
    assert not [event for event in sim.engine.poll_events() if event.kind == "bounds"]


def test_a_broken_bound_moves_the_ladder_one_step_at_a_time_and_back(sim):
    task, client = bounded(sim, end_to_end_us=50)
    at = requests(sim, client, 1, 0)
    assert ladder(sim) == (1, 1, 0)
    at = requests(sim, client, 100, at)  # within the time in which the first step must show
    assert ladder(sim)[:2] == (1, 1)
    at = requests(sim, client, 500, at)
    assert ladder(sim) == (3, 3, 0)  # as far as it goes
    assert sim.counters(task)["broken"] == {"queueing": 0, "preemption": 0, "execution": 0, "end_to_end": 601}
    events = [event for event in sim.engine.poll_events() if event.kind == "bounds"]
    assert [event.values[0] & 0xFFFF for event in events] == [0 | 1 << 8, 1 | 2 << 8, 2 | 3 << 8]
    assert all(event.task == task for event in events)
    assert events[0].text.startswith(
        "end_to_end took 0.100 ms, promised are 0.050 ms (broken 1 times): step 1, smaller"
    )
    # Nothing is broken any more: a step back for each five calm seconds.
    sim.until(at + 4_900 * MS)
    assert ladder(sim) == (3, 3, 0)
    sim.until(at + 16_000 * MS)
    assert ladder(sim) == (0, 3, 3)
    words = [event.text for event in sim.engine.poll_events()]
    assert [text.partition(": ")[2] for text in words] == [
        "back to step 2, no padding",
        "back to step 1, smaller best-effort windows",
        "back to step 0, normal",
    ]


def test_a_step_back_that_came_too_early_makes_the_next_one_later(sim):
    _, client = bounded(sim, end_to_end_us=50)
    at = requests(sim, client, 1, 0)
    sim.until(at + 5_100 * MS)
    assert ladder(sim) == (0, 1, 1)
    at = requests(sim, client, 1, at + 5_200 * MS)
    assert ladder(sim) == (1, 2, 1)
    sim.until(at + 9_000 * MS)
    assert ladder(sim) == (1, 2, 1)  # ten seconds this time
    sim.until(at + 10_100 * MS)
    assert ladder(sim) == (0, 2, 2)


def test_a_budget_forgives_its_share(sim):
    task, client = bounded(sim, end_to_end_us=150, budget=0.02)
    other = sim.session(sim.task("other", "rt", sim.model("other", (4, 100, 0))))
    at = 0.0
    for _ in range(10):  # one of fifty waits behind another: two in a hundred may
        sim.until(at)
        other.submit(0)
        sim.until(at + 10)
        client.submit(0)
        sim.until(at + 900)
        assert len(client.take()) == len(other.take()) == 1
        at = requests(sim, client, 49, at + 1000)
    assert sim.counters(task)["broken"]["end_to_end"] == 10
    assert ladder(sim) == (0, 0, 0)
    for number in range(10):  # and then every single one
        sim.until(at + number * 1000)
        other.submit(0)
        sim.until(at + number * 1000 + 10)
        client.submit(0)
        sim.until(at + number * 1000 + 900)
        client.take(), other.take()
    assert ladder(sim)[0] == 1


def test_suspended_best_effort_work_waits_and_goes_on_where_it_was(sim):
    be = sim.client("be", "be", *[(4, 100, 20)] * 20)
    _, client = bounded(sim, end_to_end_us=50)
    at = 0.0
    while ladder(sim)[0] < 3:
        at = requests(sim, client, 1, at, 210 * MS)
    be.submit(0)
    sim.until(at + 1_000 * MS)
    assert be.take() == [] and sim.events("launch", "be") == []
    sim.until(at + 6_000 * MS)
    (done,) = be.take()
    assert done.status == 0 and set(sim.blocks_run("be").values()) == {1}


def test_smaller_windows_are_a_quarter(sim):
    def longest(first: float, last: float) -> float:
        launches = [(kernel, block) for time, _, kernel, block in sim.events("launch", "be") if first <= time < last]
        return max(end - start for start, end in launches)

    be = sim.client("be", "be", *[(4, 100, 20)] * 200)
    _, client = bounded(sim, end_to_end_us=50)
    for slot in range(4):  # until its kernels' times are known
        be.submit(slot)
    sim.until(90 * MS)
    usual = longest(50 * MS, 90 * MS)
    assert 15 <= usual <= 30  # about 2 ms, as far as the kernels' times are known
    be.take()
    requests(sim, client, 1, 90 * MS)
    assert ladder(sim)[0] == 1
    be.submit(0)
    sim.until(130 * MS)
    assert 3 <= longest(95 * MS, 130 * MS) <= usual / 3
