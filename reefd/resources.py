# SPDX-License-Identifier: Apache-2.0
"""From the names in a manifest to compiled models: where they lie, what is wrong with them, and their signature."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reefd import promises
from reefd.manifest import Manifest
from reefd.yamlfile import Problem

if TYPE_CHECKING:
    from reefd._engine import Engine, Model
    from reefd.resource import Profile, Resource
    from reefd.resource.profile import Machine

# A model that launches nothing: the engine copies the first and last bytes of its input. For `reefctl bench ring`.
_ECHO = re.compile(r"echo:([0-9]{1,9})")
_ECHO_LIMITS = (64, 64 << 20)


class LoadError(Exception):
    """A task cannot be served: its text names the file and the reason."""


def find(name: str, directories: Sequence[Path]) -> Path:
    """The folder of a model. Raises LoadError where no directory has it."""
    for directory in directories:
        if (directory / name / "model.json").exists():
            return directory / name
    places = ", ".join(map(str, directories)) or "no directory is configured"
    raise LoadError(f"model {name}: there is no {name}/model.json in {places}; compile it with `reefctl compile`")


def read(name: str, directories: Sequence[Path]) -> Resource | None:
    """A checked resource; None for an echo. Raises LoadError."""
    match = _ECHO.fullmatch(name)
    if match is not None:
        if not _ECHO_LIMITS[0] <= int(match[1]) <= _ECHO_LIMITS[1]:
            raise LoadError(f"model {name}: an echo has from {_ECHO_LIMITS[0]} to {_ECHO_LIMITS[1]} bytes")
        return None
    folder = find(name, directories)
    from reefd import resource

    try:
        return resource.read(folder)
    except resource.ResourceError as error:
        repair = "" if "compile" in error.reason else "; compile it again with `reefctl compile`"
        raise LoadError(f"model {name}: {error}{repair}") from error
    except OSError as error:
        raise LoadError(f"model {name}: {folder}: {error.strerror}; compile it again with `reefctl compile`") from error


def problems(path: Path, manifest: Manifest, directories: Sequence[Path]) -> list[Problem]:
    """What is wrong with the resources of a manifest, for `reefctl check`."""
    found: list[Problem] = []
    for name in dict.fromkeys(manifest.resources().values()):
        try:
            resource = read(name, directories)
        except LoadError as error:
            found.append(Problem(str(path), 0, 0, str(error)))
            continue
        if resource is not None and manifest.preempt_bound_ns("cpu") and manifest.device in ("auto", "cpu"):
            words = promises.broken(manifest, resource, "cpu", _this_machine())
            if words and manifest.enforce == "refuse":
                found.append(Problem(str(path), 0, 0, f"model {name}: {words}"))
    return found


def _this_machine() -> Machine:
    """As the daemon will find it with the instruction set that it chooses by itself."""
    from reefd._engine import instruction_sets
    from reefd.profile import machine

    isa = os.environ.get("REEF_CPU_ISA") or instruction_sets()[-1]
    return machine.here({"name": "cpu", "detail": isa, "compute_units": len(os.sched_getaffinity(0))})


@dataclass(frozen=True, slots=True)
class Served:
    """A model of a task: on the engine's device, with what was measured of it there."""

    name: str  # as clients see it
    model: Model | None  # None: an echo
    profile: Profile | None = None  # where it holds here
    warning: str = ""  # a promise that may be broken
    hint: str = ""  # what it does without


class Store:
    """The models on the engine's device, shared by the tasks that use the same resource."""

    def __init__(self, engine: Engine, directories: Iterable[Path]) -> None:
        self._engine = engine
        self._directories = tuple(directories)
        # By digest and code: a folder that was replaced is another model, and one with other code is loaded again.
        self._models: dict[tuple[str, str], Model] = {}

    def load(self, manifest: Manifest) -> tuple[list[Served], int]:
        """Each model of the task, and their signature. Raises LoadError."""
        models: list[Served] = []
        digests: dict[str, str] = {}
        for name, resource_name in manifest.resources().items():
            resource = read(resource_name, self._directories)
            if resource is None:
                models.append(Served(resource_name, None))
                digests[resource_name] = resource_name
            else:
                model = self._model(resource_name, resource)
                models.append(self._served(manifest, name, resource_name, resource, model))
                digests[name] = resource.digest
        return models, signature(digests)

    def _served(self, manifest: Manifest, name: str, resource_name: str, resource: Resource, model: Model) -> Served:
        from reefd.profile import machine

        device = self._engine.device
        here = machine.here(device)
        kind = device["kind"]
        words = promises.broken(manifest, resource, kind, here, model.blocks, policy=device["policy"])
        if words and manifest.enforce == "refuse":
            raise LoadError(f"model {resource_name}: {words}")
        hint = ""
        profile, why = promises.usable(resource, kind, here, model.blocks, self._code(resource))
        if profile is None and manifest.task_class == "rt" and device["split_granule"]:
            hint = f"model {resource_name}: no padding, {why}; `{promises.command(resource.path, kind)}` measures it"
        return Served(name, model, profile, f"model {resource_name}: {words}" if words else "", hint)

    def _code(self, resource: Resource) -> str:
        device = self._engine.device
        return resource.code_sum(device["target"]) if device["kind"] in ("cuda", "hip") else ""

    def _model(self, name: str, resource: Resource) -> Model:
        key = resource.digest, self._code(resource)
        if key not in self._models:
            from reefd._engine import ModelError
            from reefd.resource import ResourceError
            from reefd.resource.load import model_spec

            try:
                spec = model_spec(resource)
                if self._engine.device["kind"] in ("cuda", "hip"):
                    from reefd.gpu.stored import load

                    spec.set_program(load(resource, self._engine.device["target"]))
                self._models[key] = self._engine.load(spec)
            except ResourceError as error:
                raise LoadError(f"model {name}: {error}") from error
            except ModelError as error:
                raise LoadError(f"model {name}: {resource.path}: {error}") from error
        return self._models[key]

    def keep_only(self, used: Iterable[Model | None]) -> None:
        """Forgets the models that no task uses; the engine frees them when nothing refers to them any more."""
        wanted = {id(model) for model in used}
        self._models = {key: model for key, model in self._models.items() if id(model) in wanted}


def signature(digests: Mapping[str, str]) -> int:
    """64 bits that name the models of a task, in order, to the byte: a session is adopted only by the same ones."""
    text = "\n".join(f"{name}={digest}" for name, digest in digests.items())
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") or 1
