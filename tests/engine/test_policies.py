# SPDX-License-Identifier: Apache-2.0
"""The same arrivals under each policy, in simulated time, to the nanosecond; and the same bits from the CPU device."""

from __future__ import annotations

import numpy as np
import pytest

from reefd import _engine

from . import models
from .regions import open_session
from .simulation import Simulation

POLICIES = ("reef", "reset", "wait", "streams", "sequential")


def test_an_unknown_policy_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(_engine.EngineError, match="'fifo' is unknown; there are: reef, reset, wait, streams, sequ"):
        _engine.Engine(device="simulated", policy="fifo")


# Best effort: five kernels of 4 blocks of 100 us with check points every 20 us, on 4 units. Real time at 150.
@pytest.mark.parametrize(
    ("policy", "real_time", "best_effort", "preemptions"),
    [
        ("reef", (150, 210), 210 + 400, 1),  # the units are free at 160; 60 us of the second kernel are lost
        ("reset", (150, 210), 210 + 400, 1),
        ("wait", (150, 250), 250 + 300, 1),  # the second kernel's blocks run to 200: nothing is lost
        # Its first kernel begins at 200, when blocks end, its second at 250: best effort takes no unit in between.
        ("streams", (150, 250), 550, 0),
        ("sequential", (500, 550), 500, 0),  # the request that runs is waited for
    ],
)
def test_real_time_arrives_while_best_effort_runs(simulate, policy, real_time, best_effort, preemptions):
    sim = simulate(policy)
    be = sim.client("be", "be", *[(4, 100, 20)] * 5)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    sim.until(150)
    rt.submit(0)
    sim.until(3000)
    (done,) = rt.take()
    assert sim.times(done)[1:] == real_time
    (done,) = be.take()
    assert (sim.times(done)[2], done.preemptions) == (best_effort, preemptions)
    assert set(sim.blocks_run("be").values()) == {1}


def test_streams_let_best_effort_in_between_real_time_kernels(simulate):
    """What vendor priorities cannot prevent: a unit that real time leaves for a moment is taken by a long block."""
    ends = {}
    for policy in ("reset", "streams"):
        sim = simulate(policy)
        be = sim.client("be", "be", (64, 300, 20))
        rt = sim.client("rt", "rt", (2, 50, 0), (4, 50, 0))
        be.submit(0)
        rt.submit(0)
        sim.until(20_000)
        (done,) = rt.take()
        ends[policy] = sim.times(done)[2]
    # Two units have no real-time block in the first kernel: best effort takes them until 300, and the second kernel's
    # four blocks have two units.
    assert ends == {"reset": 100, "streams": 150}


def test_wait_falls_through_what_has_not_begun(simulate):
    sim = simulate("wait")
    be = sim.client("be", "be", *[(8, 100, 20)] * 3)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    sim.until(50)
    rt.submit(0)
    sim.until(3000)
    (done,) = rt.take()
    assert sim.times(done)[2] == 150  # four of the eight blocks had begun; the others wait
    assert sim.events("abandon") == []


def test_sequential_is_real_time_first_then_arrival(simulate):
    sim = simulate("sequential")
    first = sim.client("first", "be", (4, 100, 20), weight=1)
    second = sim.client("second", "be", (4, 100, 20), weight=10000)
    rt = sim.client("rt", "rt", (4, 10, 0))
    order = [second, first, first, second, first]
    for at, client in enumerate(order):
        client.submit(sum(c is client for c in order[:at]), user_data=at)
        sim.until(at + 1)
    rt.submit(0, user_data=99)
    sim.until(2000)
    done = sorted(first.take() + second.take() + rt.take(), key=lambda d: d.start_ns)
    assert [(d.user_data, sim.us(d.start_ns)) for d in done] == [
        (0, 0), (99, 100), (1, 110), (2, 210), (3, 310), (4, 410),
    ]  # fmt: skip
    assert max(len([1 for t, *_ in sim.events("launch") if t == time]) for time, *_ in sim.events("launch")) == 1


@pytest.mark.parametrize("policy", ["streams", "sequential"])
def test_plain_policies_do_not_listen_to_announcements(simulate, policy):
    sim = simulate(policy)
    be = sim.client("be", "be", *[(4, 100, 20)] * 5)
    rt = sim.client("rt", "rt", (4, 50, 0))
    rt.announce()
    be.submit(0)
    sim.until(1000)
    (done,) = be.take()
    assert sim.times(done)[1:] == (0, 500)


@pytest.mark.parametrize("policy", ["reef", "reset", "wait"])
def test_an_announcement_holds_best_effort_back_until_the_request_comes(simulate, policy):
    """The device is empty when it comes: running blocks left at their check point, or at their end under `wait`."""
    sim = simulate(policy)
    be = sim.client("be", "be", *[(4, 100, 20)] * 5)
    rt = sim.client("rt", "rt", (4, 50, 0))
    be.submit(0)
    sim.until(150)
    rt.announce()
    sim.until(400)
    assert [time for time, *_ in sim.events("block", "be") if time > 200] == []
    rt.submit(0)
    sim.until(2000)
    assert sim.times(rt.take()[0])[1:] == (400, 450)
    (done,) = be.take()
    assert sim.times(done)[2] == 450 + (300 if policy == "wait" else 400)
    assert len(sim.blocks_run("be")) == 20 and set(sim.blocks_run("be").values()) == {1}


def launches_of_two_requests(sim: Simulation) -> list[int]:
    """When windows of a request of four long kernels are launched; its second run, at 50,000 us, with learned times."""
    be = sim.client("be", "be", *[(4, 5000, 20)] * 4)
    for at in (0, 50_000):
        sim.until(at)
        be.submit(0)
        sim.until(at + 40_000)
        assert [done.status for done in be.take()] == [0]
    return [time for time, *_ in sim.events("launch", "be")]


@pytest.mark.parametrize("policy", ["streams", "sequential"])
def test_plain_requests_are_one_window_however_long(simulate, policy):
    assert launches_of_two_requests(simulate(policy)) == [0, 50_000]


def test_a_window_waits_behind_the_one_that_runs_however_long(simulate):
    of_the_second = [time for time in launches_of_two_requests(simulate("reef")) if time >= 50_000]
    assert of_the_second == [50_000, 50_000, 55_000, 60_000]


@pytest.mark.parametrize("policy", POLICIES)
def test_outputs_have_the_same_bits_under_every_policy(policy):
    """Both classes at once on the CPU device; each result is compared with a run alone."""
    engine = _engine.Engine(device="cpu", workers=2, policy=policy, realtime=False)
    model = engine.load(models.steps())
    data = [np.random.default_rng(i).standard_normal(models.SIZE, dtype=np.float32) for i in range(2)]
    expected = [np.empty_like(values) for values in data]
    for values, result in zip(data, expected, strict=True):
        engine.run(model, [values], [result])
    engine.start()
    clients = []
    for i, task_class in enumerate(("rt", "be")):
        task = engine.add_task(
            _engine.TaskSpec(name=task_class, task_class=task_class, models=[("steps", model)], slots=4)
        )
        clients.append(open_session(engine, task, i + 1))
    for values, client in zip(data, clients, strict=True):
        for slot in range(4):
            client.input(slot)[: values.nbytes] = values.tobytes()
    for _ in range(5):
        for client in reversed(clients):
            for slot in range(4):
                client.submit(slot, publish=False)
            client.publish()
        for result, client in zip(expected, clients, strict=True):
            assert [done.status for done in client.wait(4)] == [0] * 4
            for slot in range(4):
                assert client.output(slot)[: result.nbytes] == result.tobytes()
    engine.stop(grace_ns=0, keep_sessions=False)
