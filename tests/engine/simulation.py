# SPDX-License-Identifier: Apache-2.0
"""Scenarios in simulated time: the real rings and scheduler, a device that is a cost model.

Times in scenarios are microseconds from the start, and exact: the same scenario gives the same figures on any machine.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

from reefd import _engine

from .regions import Client, Completion, open_session

US = 1000


class Simulation:
    def __init__(self, units: int = 4, policy: str = "reef", device: str = "simulated") -> None:
        self.engine = _engine.Engine(device=device, workers=units, policy=policy)
        self.engine.start()
        self.trace: list[tuple[float, str, int, str, int, int]] = []
        self._sessions = count(1)
        self._now_us = 0.0
        self._start_ns = 1_000_000_000

    def model(self, name: str, *kernels: tuple[int, float, float], fetch: int = 0, deliver: int = 0) -> _engine.Model:
        """Each kernel is (blocks, microseconds a block, microseconds between check points). Best-effort inputs and
        outputs take so many pieces of 10 us."""
        spec = _engine.ModelSpec(name, 0)
        x = spec.add_storage("x", "input", "uint8", [8])
        y = spec.add_storage("y", "output", "uint8", [8])
        for i, (blocks, block_us, check_us) in enumerate(kernels):
            cost = {"blocks": blocks, "block_ns": round(block_us * US), "check_ns": round(check_us * US)}
            cost |= {"fetch_pieces": fetch, "deliver_pieces": deliver}
            spec.add_kernel(f"k{i}", "simulated", [x, y], ["read", "write"], cost)
        spec.set_inputs([x])
        spec.set_outputs([y])
        return self.engine.load(spec)

    def task(self, name: str, task_class: str, *models: _engine.Model, slots: int = 8, **options: Any) -> int:
        named = [(model.name, model) for model in models]
        return self.engine.add_task(
            _engine.TaskSpec(name=name, task_class=task_class, models=named, slots=slots, **options)
        )

    def session(self, task: int) -> Client:
        return open_session(self.engine, task, next(self._sessions))

    def client(
        self,
        name: str,
        task_class: str,
        *kernels: tuple[int, float, float],
        fetch: int = 0,
        deliver: int = 0,
        **options: Any,
    ) -> Client:
        """A task of its own with one model of the same name, and a session on it."""
        model = self.model(name, *kernels, fetch=fetch, deliver=deliver)
        return self.session(self.task(name, task_class, model, **options))

    def until(self, us: float) -> None:
        """Lets time pass up to this moment."""
        assert us >= self._now_us
        self.engine.advance(round((us - self._now_us) * US))
        self._now_us = us
        self.trace += [(self.us(time), *rest) for time, *rest in self.engine.trace()]

    def us(self, time_ns: int) -> float:
        return (time_ns - self._start_ns) / US

    def absolute(self, us: float) -> int:
        return self._start_ns + round(us * US)

    def times(self, done: Completion) -> tuple[float, float, float]:
        """(accepted, started, ended)"""
        return self.us(done.accept_ns), self.us(done.start_ns) if done.start_ns else 0.0, self.us(done.end_ns)

    def events(self, what: str, model: str | None = None) -> list[tuple[float, int, int, int]]:
        """(time, queue, kernel, block) of the trace."""
        return [
            (time, queue, kernel, block)
            for time, kind, queue, name, kernel, block in self.trace
            if kind == what and model in (None, name)
        ]

    def blocks_run(self, model: str) -> Counter[tuple[int, int]]:
        return Counter((kernel, block) for _, _, kernel, block in self.events("block", model))

    def counters(self, task: int) -> dict[str, int]:
        return next(t for t in self.engine.snapshot()["tasks"] if t["task"] == task)
