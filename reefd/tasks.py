# SPDX-License-Identifier: Apache-2.0
"""The tasks that the daemon serves: from manifests and resources into the engine, one by one, each to succeed alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reefd import _engine
from reefd._engine import Engine, EngineError, ModelError, TaskSpec
from reefd.log import Log
from reefd.manifest import Manifest
from reefd.resources import LoadError, Served, Store

# What the daemon itself looks at; a change of any other key needs a new task in the engine.
_LIVE_KEYS = ("allow", "max_sessions", "rate")


@dataclass(slots=True, eq=False)
class Task:
    """A task in the engine. `sessions` are the ids of those attached to it, leaving ones included."""

    number: int  # the engine's
    manifest: Manifest
    path: Path
    signature: int
    c_size: int
    d_size: int
    models: list[Served]
    sessions: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.manifest.task


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest whose models are on the device: all that can take long or fail."""

    path: Path
    manifest: Manifest
    models: list[Served]
    signature: int


def _bounds_ns(manifest: Manifest) -> tuple[int, int, int, int]:
    bounds = manifest.bounds
    return int(bounds.queueing), int(bounds.preemption), int(bounds.execution), int(bounds.end_to_end)


class Tasks:
    """By name: those served, and why the others are not. Those replaced or removed stay until their sessions end."""

    def __init__(self, engine: Engine, store: Store, log: Log) -> None:
        self._engine = engine
        self._store = store
        self._log = log
        self._served: dict[str, Task] = {}
        self._retired: list[Task] = []
        self.refused: dict[str, str] = {}

    def __iter__(self) -> Iterator[Task]:
        return iter(self._served.values())

    def __len__(self) -> int:
        return len(self._served)

    def get(self, name: str) -> Task | None:
        return self._served.get(name)

    # ---------------------------------------------------------------- coming

    def add(self, path: Path, manifest: Manifest) -> Task | None:
        """Loads a task's models and hands it to the engine. None: it is refused, the reason is logged and kept."""
        try:
            task = self.install(self.make(self.load(path, manifest)))
        except (LoadError, EngineError) as error:
            self.refused[manifest.task] = str(error)
            self._log.error("task-refused", f"{path}: {error}", task=manifest.task)
            self.forget_models()
            return None
        return task

    def load(self, path: Path, manifest: Manifest) -> Loaded:
        """Any one thread. Raises LoadError."""
        here = self._engine.device["kind"]
        if manifest.device not in ("auto", here, f"{here}:0"):  # a daemon runs on the first of its kind
            raise LoadError(f"device {manifest.device} is not what this daemon runs on ({here}): correct device:")
        return Loaded(path, manifest, *self._store.load(manifest))

    def make(self, loaded: Loaded) -> Task:
        """The engine's task, not served yet. Raises LoadError, EngineError."""
        manifest = loaded.manifest
        try:
            number = self._engine.add_task(self._spec(loaded))
        except ModelError as error:  # the models are there, and the device has no room for running them
            raise LoadError(str(error)) from error
        region = self._engine.region(number)
        size = region.c_size + region.d_size
        if 0 < manifest.memory < size:
            self._engine.remove_task(number)
            raise LoadError(f"a session needs {size} bytes, memory: allows {manifest.memory}; raise it, or lower slots")
        return Task(
            number, manifest, loaded.path, loaded.signature, region.c_size, region.d_size, loaded.models
        )  # fmt: skip

    def _spec(self, loaded: Loaded) -> TaskSpec:
        manifest = loaded.manifest
        return TaskSpec(
            name=manifest.task,
            task_class=manifest.task_class,
            models=[(model.name, model.model) for model in loaded.models],
            profiles=[self._profile(manifest, model) for model in loaded.models],
            slots=manifest.slots,
            deadline_ns=int(manifest.deadline),
            priority=manifest.priority,
            weight=manifest.weight,
            preemptible=manifest.preemptible,
            queue=manifest.queue,
            crc=manifest.crc,
            payload_crc=manifest.payload_crc,
            signature=loaded.signature,
            bounds_ns=_bounds_ns(manifest),
            budget=manifest.bounds.budget,
        )

    def _profile(self, manifest: Manifest, model: Served) -> _engine.Profile:
        """What the engine plans with: the times of the kernels, and beside real-time models the padding."""
        profile = model.profile
        if profile is None:
            return _engine.Profile()
        granule, most = self._engine.device["split_granule"], self._engine.device["split_most"]
        padding: list[tuple[int, int]] = []
        if manifest.task_class == "rt" and granule:
            segments = profile.padding.segments
            padding = [(segment.last, min(segment.units, most) // granule * granule) for segment in segments]
        return _engine.Profile(kernel_ns=[kernel.time_ns[-1] for kernel in profile.kernels], padding=padding)

    def install(self, task: Task) -> Task:
        """From now on sessions are opened on this one."""
        replaced = self._served.pop(task.name, None)
        self.refused.pop(task.name, None)
        self._served[task.name] = task
        if replaced is not None:
            self._retire(replaced)
        for model in task.models:
            if model.warning:
                self._log.warning("promise", model.warning, task=task.name)
            if model.hint:
                self._log.info("padding", model.hint, task=task.name)
        models = ", ".join(task.manifest.resources().values())
        self._log.info("task", f"{task.manifest.task_class}, {models}: ready", task=task.name)
        for served in task.models:
            saved = served.model.snapshot_bytes if served.model is not None else 0
            if saved:
                words = f"model {served.name} has kernels that are not restorable and save up to {saved} bytes first"
                self._log.info("units", f"{words}; `reefctl verify` names them", task=task.name)
        return task

    # ---------------------------------------------------------------- changing and going

    def same_engine_task(self, loaded: Loaded) -> Task | None:
        """The task that is served and needs, for this manifest, nothing new in the engine."""
        task = self._served.get(loaded.manifest.task)
        if task is None or task.signature != loaded.signature:
            return None
        if [model.profile for model in task.models] != [model.profile for model in loaded.models]:
            return None
        old, new = task.manifest, loaded.manifest
        for key in Manifest.__struct_fields__:
            if key not in _LIVE_KEYS and getattr(old, key) != getattr(new, key):
                return None
        return task

    def discard(self, task: Task) -> None:
        """One that was made and not installed."""
        self._engine.remove_task(task.number)
        self.forget_models()

    def remove(self, task: Task) -> None:
        """No more sessions are opened on it. It leaves the engine with its last one."""
        del self._served[task.name]
        self._retire(task)

    def _retire(self, task: Task) -> None:
        self._retired.append(task)
        self.sweep()

    def sweep(self) -> None:
        """Takes out of the engine what was retired and has no session left, and models that nobody uses."""
        gone = [task for task in self._retired if not task.sessions]
        for task in gone:
            self._engine.remove_task(task.number)
            self._retired.remove(task)
        if gone:
            self.forget_models()

    def forget_models(self) -> None:
        """Frees on the device those that no task uses; also those of a task that was refused."""
        self._store.keep_only(model.model for task in (*self, *self._retired) for model in task.models)
