# SPDX-License-Identifier: Apache-2.0
"""The tasks that the daemon serves: from manifests and resources into the engine, one by one, each to succeed alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reefd._engine import Engine, EngineError, Model, TaskSpec
from reefd.log import Log
from reefd.manifest import Manifest
from reefd.resources import LoadError, Store


@dataclass(slots=True, eq=False)
class Task:
    """A task in the engine. `sessions` are the ids of those attached to it, leaving ones included."""

    number: int  # the engine's
    manifest: Manifest
    path: Path
    signature: int
    c_size: int
    d_size: int
    models: list[tuple[str, Model | None]]
    sessions: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.manifest.task


class Tasks:
    """By name: those served, and why the others are not."""

    def __init__(self, engine: Engine, store: Store, log: Log) -> None:
        self._engine = engine
        self._store = store
        self._log = log
        self._served: dict[str, Task] = {}
        self.refused: dict[str, str] = {}

    def __iter__(self) -> Iterator[Task]:
        return iter(self._served.values())

    def __len__(self) -> int:
        return len(self._served)

    def get(self, name: str) -> Task | None:
        return self._served.get(name)

    def add(self, path: Path, manifest: Manifest) -> Task | None:
        """Loads a task's models and hands it to the engine. None: it is refused, the reason is logged and kept."""
        try:
            task = self._add(path, manifest)
        except (LoadError, EngineError) as error:
            self.refused[manifest.task] = str(error)
            self._log.error("task-refused", f"{path}: {error}", task=manifest.task)
            return None
        self.refused.pop(manifest.task, None)
        self._served[manifest.task] = task
        models = ", ".join(manifest.resources().values())
        self._log.info("task", f"{manifest.task_class}, {models}: ready", task=manifest.task)
        return task

    def _add(self, path: Path, manifest: Manifest) -> Task:
        here = self._engine.device["name"]
        if manifest.device not in ("auto", here):
            raise LoadError(f"device {manifest.device} is not what this daemon runs on ({here}): correct device:")
        models, signature = self._store.load(manifest)
        number = self._engine.add_task(
            TaskSpec(
                name=manifest.task,
                task_class=manifest.task_class,
                models=models,
                slots=manifest.slots,
                deadline_ns=int(manifest.deadline),
                priority=manifest.priority,
                weight=manifest.weight,
                queue=manifest.queue,
                crc=manifest.crc,
                signature=signature,
            )
        )
        region = self._engine.region(number)
        size = region.c_size + region.d_size
        if 0 < manifest.memory < size:
            self._engine.remove_task(number)
            raise LoadError(f"a session needs {size} bytes, memory: allows {manifest.memory}; raise it, or lower slots")
        return Task(number, manifest, path, signature, region.c_size, region.d_size, models)

    def remove(self, task: Task) -> None:
        """Takes a task away, and the models that only it used. Raises EngineError while it has sessions."""
        self._engine.remove_task(task.number)
        del self._served[task.name]
        self._store.keep_only(model for other in self for _, model in other.models)
