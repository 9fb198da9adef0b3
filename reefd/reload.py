# SPDX-License-Identifier: Apache-2.0
"""Reading the manifests again while the daemon serves: all of the change comes into force, or none of it.

A thread reads and loads, so that nobody waits for it; what may fail is done before anything is changed. Tasks whose
manifests and models are the same are not touched. A task that changed is served beside its old self until the last
session of that ends; a task that is gone takes its sessions along.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reefd import manifest
from reefd._engine import EngineError
from reefd.config import Config
from reefd.log import Log
from reefd.loop import Loop
from reefd.manifest import Manifest
from reefd.notify import notify, patience, reloading
from reefd.resources import LoadError
from reefd.sessions import Session, Sessions
from reefd.tasks import Loaded, Task, Tasks

_LOAD_SECONDS = 600.0


class ReloadRefused(Exception):
    """Nothing was changed. The text has every reason, a line each, with file and line."""


@dataclass(slots=True)
class _Plan:
    """What a thread found out. `problems` stays empty, or nothing is changed."""

    tasks: list[Task] = field(default_factory=list)  # made, not installed
    live: list[tuple[Task, Loaded]] = field(default_factory=list)  # only the daemon's own keys may have changed
    names: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Reloader:
    """One reload at a time. `then` gets what changed, as a dictionary for JSON, or the ReloadRefused."""

    def __init__(
        self,
        settings: Config,
        log: Log,
        loop: Loop,
        tasks: Tasks,
        sessions: Sessions,
        drop: Callable[[Session, int], None],
        status: Callable[[], str],
    ) -> None:
        self._directory = Path(settings.manifest_dir)
        self._log = log
        self._loop = loop
        self._tasks = tasks
        self._sessions = sessions
        self._drop = drop
        self._status = status
        self._running = False

    def start(self, then: Callable[[dict[str, Any] | ReloadRefused], None]) -> None:
        if self._running:
            then(ReloadRefused("a reload is going on: wait for its end, then ask again"))
            return
        self._running = True
        reloading()
        notify(STATUS="reading the manifests again")
        threading.Thread(target=self._prepare, args=(then,), name="reload", daemon=True).start()

    # ---------------------------------------------------------------- the thread

    def _prepare(self, then: Callable[[dict[str, Any] | ReloadRefused], None]) -> None:
        plan = _Plan()
        try:
            with patience(_LOAD_SECONDS):
                self._read(plan)
        except Exception as error:  # whatever it is, the loop has to hear of it
            plan.problems.append(f"{type(error).__name__}: {error}")
        self._loop.from_thread(lambda: self._finish(plan, then))

    def _read(self, plan: _Plan) -> None:
        try:
            paths = manifest.files_of(self._directory)
        except OSError as error:
            plan.problems.append(f"{self._directory}: manifests cannot be listed: {error.strerror}")
            return
        good, problems, warnings = manifest.load_files(paths)
        plan.warnings = [str(warning) for warning in warnings]
        plan.problems = [str(problem) for problem in problems]
        if problems:
            return
        for path, entry in good.items():
            self._load(plan, path, entry)

    def _load(self, plan: _Plan, path: Path, entry: Manifest) -> None:
        plan.names.add(entry.task)
        try:
            loaded = self._tasks.load(path, entry)
            same = self._tasks.same_engine_task(loaded)
            if same is not None:
                plan.live.append((same, loaded))
            else:
                plan.tasks.append(self._tasks.make(loaded))
        except (LoadError, EngineError) as error:
            plan.problems.append(f"{path}: {error}")

    # ---------------------------------------------------------------- the loop

    def _finish(self, plan: _Plan, then: Callable[[dict[str, Any] | ReloadRefused], None]) -> None:
        self._running = False
        for warning in plan.warnings:
            self._log.warning("manifest", warning)
        outcome = self._refuse(plan) if plan.problems else self._apply(plan)
        if isinstance(outcome, ReloadRefused):
            notify(READY=1, STATUS=f"{self._status()}; reload refused: {plan.problems[0]}")
        else:
            notify(READY=1, STATUS=self._status())
        then(outcome)

    def _refuse(self, plan: _Plan) -> ReloadRefused:
        for task in plan.tasks:
            self._tasks.discard(task)
        self._tasks.forget_models()
        for problem in plan.problems:
            self._log.error("reload-refused", f"{problem}; what was served before goes on")
        return ReloadRefused("\n".join(plan.problems))

    def _apply(self, plan: _Plan) -> dict[str, Any]:
        changed = {"added": [], "changed": [], "removed": [], "unchanged": []}  # type: dict[str, list[str]]
        for task, loaded in plan.live:
            changed["unchanged" if task.manifest == loaded.manifest else "changed"].append(task.name)
            task.manifest, task.path = loaded.manifest, loaded.path
        for task in plan.tasks:
            changed["changed" if self._tasks.get(task.name) else "added"].append(task.name)
            self._tasks.install(task)
        for task in [task for task in self._tasks if task.name not in plan.names]:
            changed["removed"].append(task.name)
            self._tasks.remove(task)
            for number in list(task.sessions):
                session = self._sessions.get(number)
                if session is not None and not session.leaving:
                    self._drop(session, -errno.ESHUTDOWN)
        self._tasks.refused.clear()
        self._tasks.sweep()
        words = ", ".join(f"{len(names)} {what}" for what, names in changed.items())
        self._log.info("reloaded", f"tasks: {words}")
        return changed
