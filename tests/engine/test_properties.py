# SPDX-License-Identifier: Apache-2.0
"""What holds for every trace of arrivals: the real scheduler in simulated time, arrivals by Hypothesis.

A trace is a list of tasks with their models, and of arrivals. The simulated device's own trace is the witness.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from reefd import _engine

from .simulation import Simulation

UNITS = 3
SLOTS = 4

# Blocks, microseconds a block, microseconds between check points.
kernels = st.lists(
    st.tuples(st.integers(1, 7), st.sampled_from([5, 20, 90, 400]), st.sampled_from([0, 5, 15])), min_size=1, max_size=4
)


@dataclass
class TaskPlan:
    real_time: bool
    kernels: list[tuple[int, int, int]]
    priority: int
    weight: int
    preemptible: bool
    split: int  # 0: no plan
    fetch: int = 0  # pieces of 10 us that best-effort inputs and outputs take
    deliver: int = 0


tasks = st.lists(
    st.builds(
        TaskPlan, st.booleans(), kernels, st.integers(0, 2), st.sampled_from([50, 100, 300]), st.booleans(),
        st.integers(0, UNITS - 1),
    ),
    min_size=1, max_size=5,
)  # fmt: skip
moving = st.lists(
    st.builds(
        TaskPlan, st.booleans(), kernels, st.integers(0, 2), st.sampled_from([50, 100, 300]), st.booleans(),
        st.integers(0, UNITS - 1), st.sampled_from([0, 1, 3, 30]), st.sampled_from([0, 1, 3, 30]),
    ),
    min_size=1, max_size=5,
)  # fmt: skip
# (task, microseconds since the arrival before, deadline after it or 0, what: submit, announce, cancel the last one, its
# client dies)
arrivals = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 300), st.sampled_from([0, 0, 0, 150, 2000]),
        st.sampled_from(["submit"] * 8 + ["announce", "announce", "cancel", "cancel", "die"]),
    ),
    min_size=1, max_size=40,
)  # fmt: skip
policies = st.sampled_from(["reef", "reset", "wait", "streams", "sequential"])
fast = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)


class Run:
    """Plays a trace and keeps every completion."""

    def __init__(
        self, policy: str, plans: list[TaskPlan], events: list[tuple[int, int, int, str]], padded: bool
    ) -> None:
        self.sim = Simulation(UNITS, policy)
        self.plans = plans
        self.names = [f"t{i}" for i in range(len(plans))]
        self.clients = []
        for name, plan in zip(self.names, plans, strict=True):
            options: dict[str, object] = {"priority": plan.priority} if plan.real_time else {"weight": plan.weight}
            if plan.real_time:
                options["preemptible"] = plan.preemptible
                if padded and plan.split:
                    options["profiles"] = [_engine.Profile(padding=[(len(plan.kernels), plan.split)])]
            task_class = "rt" if plan.real_time else "be"
            options |= {"fetch": plan.fetch, "deliver": plan.deliver}
            self.clients.append(self.sim.client(name, task_class, *plan.kernels, slots=SLOTS, **options))
        self.submitted: dict[tuple[int, int, int], float] = {}  # task, slot, generation: its deadline
        self.died: set[int] = set()  # tasks
        self.done: dict[tuple[int, int, int], list[object]] = defaultdict(list)
        busy: list[set[int]] = [set() for _ in plans]
        at = 0.0
        for task, gap, deadline, what in events:
            task %= len(plans)
            at += gap
            self.sim.until(at)
            self.take(busy)
            if task in self.died:
                continue
            client = self.clients[task]
            free = [slot for slot in range(SLOTS) if slot not in busy[task]]
            if what == "announce" and plans[task].real_time:
                client.announce()
            elif what == "cancel" and busy[task]:
                slot = max(busy[task])
                client.write_entry(opcode=1, slot=slot, generation=client.generations[slot])
                client.publish()
            elif what == "submit" and free:
                generation = client.submit(free[0], deadline_ns=self.sim.absolute(at + deadline) if deadline else 0)
                busy[task].add(free[0])
                self.submitted[task, free[0], generation] = at + deadline if deadline else float("inf")
            elif what == "die":
                self.sim.until(at + 0.001)  # what it submitted is accepted
                at += 0.001
                self.sim.engine.detach(session_id=task + 1, code=0)
                self.died.add(task)
        self.sim.until(at + 1_000_000)
        self.take(busy)
        self.left = sorted(event.session for event in self.sim.engine.poll_events() if event.kind == "detached")
        self.shielded = sum(task["shielded"] for task in self.sim.engine.snapshot()["tasks"])
        self.sim.engine.stop(grace_ns=0, keep_sessions=False)
        for client in self.clients:
            client.regions.close()  # many runs in one process: their descriptors would soon be too many
        self.clients.clear()

    def take(self, busy: list[set[int]]) -> None:
        for task, client in enumerate(self.clients):
            for done in client.take():
                self.done[task, done.slot, done.generation].append(done)
                busy[task].discard(done.slot)


@fast
@given(policies, moving, arrivals)
def test_every_accepted_request_completes_exactly_once_and_no_block_of_it_runs_twice(policy, plans, events):
    run = Run(policy, plans, events, padded=True)
    assert sorted(run.done) == sorted(run.submitted)
    assert all(len(done) == 1 for done in run.done.values())
    for task, (name, plan) in enumerate(zip(run.names, plans, strict=True)):
        finished = sum(done.status == 0 for (of, *_), (done,) in run.done.items() if of == task)
        begun = sum(done.start_ns != 0 for (of, *_), (done,) in run.done.items() if of == task)
        ran = run.sim.blocks_run(name)
        for kernel, (blocks, *_) in enumerate(plan.kernels):
            for block in range(blocks):
                assert finished <= ran[kernel, block] <= begun
    # The device let go of whoever died, and only of those.
    assert run.left == sorted(task + 1 for task in run.died)


@fast
@given(policies, moving, arrivals)
def test_tensors_come_before_kernels_and_completion_after_tensors(policy, plans, events):
    """A successful request has brought all of its outputs, once; two pieces are in flight at most; none of best-effort
    requests begins while real-time work has the device; and the memory of whoever is gone is left alone."""
    run = Run(policy, plain_real_time(plans), events, padded=False)
    real_time = [run.sim.times(done) for (task, *_), (done,) in run.done.items() if plans[task].real_time]
    for kind in ("fetch", "deliver"):
        lands: list[float] = []  # when each piece does, in order
        for time, *_ in run.sim.events(kind):
            assert sum(other > time for other in lands) < 2
            lands.append(max([time, *lands[-1:]]) + 10)
            if policy != "streams":
                assert not any(accepted < time < ended for accepted, _, ended in real_time), (kind, time)
        for task, (name, plan) in enumerate(zip(run.names, plans, strict=True)):
            pieces = [(time, number) for time, _, number, _ in run.sim.events(kind, name)]
            dones = [done for (of, *_), (done,) in run.done.items() if of == task]
            of_one = plan.fetch if kind == "fetch" else plan.deliver
            whole = sum(number == of_one - 1 for _, number in pieces)
            if plan.real_time:
                assert pieces == []
            elif of_one:
                ran = sum(done.status == 0 for done in dones)
                assert ran <= whole <= sum(done.start_ns != 0 for done in dones)
                ends = sorted(run.sim.times(done)[2] for done in dones)
                assert not pieces or pieces[-1][0] + 10 <= ends[-1] + 1e-6


def blocks_of(run: Run) -> list[tuple[float, float, int, bool]]:
    """(begin, end, queue, real time) of every block that was on a unit."""
    result = []
    for time, kind, queue, name, kernel, _ in run.sim.trace:
        if kind == "block":
            plan = run.plans[run.names.index(name)]
            result.append((time - plan.kernels[kernel][1], time, queue, plan.real_time))
    return result


@fast
@given(st.sampled_from(["reef", "reset", "wait"]), tasks, arrivals)
def test_real_time_never_waits_for_a_best_effort_block(policy, plans, events):
    """Beyond the device's own reset time, which is what its kernels say of their check points (`wait`: the block that
    had begun), and shielded blocks."""
    plans = [
        TaskPlan(p.real_time, [(b, ns, check or 15) for b, ns, check in p.kernels], p.priority, p.weight, False, 0)
        for p in plans
    ]
    run = Run(policy, plans, events, padded=False)
    assume(not run.shielded)
    reset = 400 if policy == "wait" else 15
    windows = []  # of real-time work on the device
    for time, kind, queue, *_ in run.sim.trace:
        if queue == 0 and kind == "launch":
            windows.append([time, float("inf")])
        elif queue == 0 and kind == "retire":
            next(window for window in windows if window[1] == float("inf"))[1] = time
    for begin, end, _, real_time in blocks_of(run):
        for launched, retired in windows:
            if not real_time and begin < retired and end > launched:
                assert begin <= launched and end <= launched + reset, (begin, end, launched, retired)


def plain_real_time(plans: list[TaskPlan]) -> list[TaskPlan]:
    """Neither preemptible nor padded."""
    return [TaskPlan(p.real_time, p.kernels, p.priority, p.weight, False, 0, p.fetch, p.deliver) for p in plans]


@fast
@given(st.sampled_from(["reef", "reset", "wait", "sequential"]), tasks, arrivals)
def test_nothing_best_effort_is_launched_while_real_time_work_is_there(policy, plans, events):
    run = Run(policy, plain_real_time(plans), events, padded=False)
    there = [run.sim.times(done) for (task, *_), (done,) in run.done.items() if plans[task].real_time]
    for time, queue, *_ in run.sim.events("launch"):
        if queue != 0:
            assert not any(accepted < time < ended for accepted, _, ended in there), (time, there)


@fast
@given(policies, tasks, arrivals)
def test_the_most_urgent_real_time_request_is_next(policy, plans, events):
    """By deadline, then priority, then arrival."""
    run = Run(policy, plain_real_time(plans), events, padded=False)
    requests = []
    for (task, *rest), (done,) in run.done.items():
        if plans[task].real_time:
            accepted, started, ended = run.sim.times(done)
            urgency = (run.submitted[task, *rest], -plans[task].priority, accepted)
            requests.append((accepted, started, ended, urgency))
    for _, began, _, urgency in requests:
        for accepted, started, ended, other in requests:
            if began and accepted < began < (started or ended):
                assert urgency <= other, (began, urgency, other)


@fast
@given(tasks, arrivals)
def test_streams_take_real_time_blocks_first(plans, events):
    """No unit begins a best-effort block while a real-time block waits for one."""
    run = Run("streams", plain_real_time(plans), events, padded=False)
    launched, waits = 0.0, []  # from when a block could have begun until it did
    ended = 0.0  # the last block of the kernel before
    kernels: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for time, kind, queue, name, kernel, _ in run.sim.trace:
        if queue != 0:
            continue
        if kind == "launch":
            launched = time
        elif kind == "block":
            kernels[kernel].append((time - run.plans[run.names.index(name)].kernels[kernel][1], time))
        elif kind == "retire":
            ended = launched
            for k in sorted(kernels):
                waits += [(ended, begin) for begin, _ in kernels[k]]
                ended = max(end for _, end in kernels[k])
            kernels.clear()
    for begin, _, queue, _ in blocks_of(run):
        if queue != 0:
            for ready, began in waits:
                assert not ready + 0.001 < begin < began - 0.001, (begin, ready, began)


@fast
@given(st.sampled_from(["reef", "reset", "wait", "streams"]), tasks, arrivals)
def test_work_is_conserved(policy, plans, events):
    """A best-effort request that could start does not wait while a unit has no work and no real-time work is there.

    But for its task's share: one that is two windows ahead of another may not add to a window that is counted as wide
    as its widest kernel, whatever it uses just now. With such weights no task gets so far ahead.
    """
    events = [(task, gap, 0, "submit") for task, gap, *_ in events]
    plans = [replace(plan, weight=1_000_000) for plan in plans]
    run = Run(policy, plans, events, padded=False)
    changes: list[tuple[float, int, int]] = []  # time, units in use, real-time requests in the engine
    for begin, end, *_ in blocks_of(run):
        changes += [(begin, 1, 0), (end, -1, 0)]
    for time, kind, _, name, kernel, _ in run.sim.trace:
        if kind == "abandon":  # it was on a unit for an unknown while: at most the time of a block
            changes += [(time - run.plans[run.names.index(name)].kernels[kernel][1], 1, 0), (time, -1, 0)]
    waits = []
    for (task, *_), (done,) in run.done.items():
        accepted, started, ended = run.sim.times(done)
        if plans[task].real_time:
            changes += [(accepted, 0, 1), (ended, 0, -1)]
        elif started > accepted:
            # Its task may have no execution context left: two requests of it are in progress.
            mates = [run.sim.times(d) for (of, *rest), (d,) in run.done.items() if of == task and d is not done]
            full = [t for t in (accepted, started) if sum(s <= t < e for _, s, e in mates) >= 2]
            if not full:
                waits.append((accepted, started, mates))
    times = sorted({time for time, *_ in changes})
    for left, right in pairwise(times):
        if right - left < 0.01:  # the engine's turn
            continue
        middle = (left + right) / 2
        units = sum(use for time, use, _ in changes if time <= middle)
        real_time = sum(count for time, _, count in changes if time <= middle)
        if units < UNITS and real_time == 0:
            for accepted, started, mates in waits:
                blocked = sum(s <= middle < e for _, s, e in mates) >= 2
                assert blocked or not accepted < middle < started, (middle, accepted, started)


@pytest.mark.parametrize("weights", [(100, 100, 100), (100, 200, 300), (1, 10, 100)])
def test_weights_are_kept_over_a_long_run(weights):
    """Three saturating tasks with kernels of different sizes for 400 ms, real time in between."""
    sim = Simulation(UNITS)
    shapes = ([(3, 90, 5)] * 4, [(7, 20, 5), (1, 400, 15)], [(6, 90, 10)] * 9)
    clients = [
        sim.client(f"be{i}", "be", *shape, weight=weight, slots=64)
        for i, (weight, shape) in enumerate(zip(weights, shapes, strict=True))
    ]
    rt = sim.client("rt", "rt", (3, 300, 0))
    for client in clients:
        for slot in range(64):
            client.submit(slot, publish=False)
        client.publish()
    used = [0.0] * 3
    for step in range(80):
        sim.until(step * 5000 + 2000)
        if step % 4 == 0:
            rt.take()
            rt.submit(0)
        sim.until((step + 1) * 5000)
        for client in clients:
            for done in client.take():
                client.submit(done.slot)
        for i, shape in enumerate(shapes):
            used[i] += sum(shape[kernel][1] for _, _, kernel, _ in sim.events("block", f"be{i}"))
        sim.trace.clear()
    sim.engine.stop(grace_ns=0, keep_sessions=False)
    total, weight = sum(used), sum(weights)
    for i in range(3):
        assert used[i] / total == pytest.approx(weights[i] / weight, rel=0.15, abs=0.01), used
