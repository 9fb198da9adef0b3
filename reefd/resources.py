# SPDX-License-Identifier: Apache-2.0
"""From the names in a manifest to compiled models: where they lie, what is wrong with them, and their signature.

The room that reads a resource (reefd.resource) needs numpy. It is imported when the first model is loaded, so that a
daemon without models stays small.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reefd.manifest import Manifest
from reefd.yamlfile import Problem

if TYPE_CHECKING:
    from reefd._engine import Engine, Model
    from reefd.resource import Resource

# A model that launches nothing: the engine copies the first and last bytes of its input. For `reefctl bench ring`.
_ECHO = re.compile(r"echo:([0-9]{1,9})")
_ECHO_LIMITS = (64, 64 << 20)


class LoadError(Exception):
    """A task cannot be served: its text names the file and the reason."""


def is_echo(name: str) -> bool:
    return _ECHO.fullmatch(name) is not None


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
        raise LoadError(f"model {name}: {error}; compile it again with `reefctl compile`") from error
    except OSError as error:
        raise LoadError(f"model {name}: {folder}: {error.strerror}; compile it again with `reefctl compile`") from error


def problems(path: Path, manifest: Manifest, directories: Sequence[Path]) -> list[Problem]:
    """What is wrong with the resources of a manifest, for `reefctl check`."""
    found: list[Problem] = []
    for name in dict.fromkeys(manifest.resources().values()):
        try:
            read(name, directories)
        except LoadError as error:
            found.append(Problem(str(path), 0, 0, str(error)))
    return found


class Store:
    """The models on the engine's device, shared by the tasks that use the same resource."""

    def __init__(self, engine: Engine, directories: Iterable[Path]) -> None:
        self._engine = engine
        self._directories = tuple(directories)
        self._models: dict[str, Model] = {}  # by digest: a folder that was replaced is another model

    def load(self, manifest: Manifest) -> tuple[list[tuple[str, Model | None]], int]:
        """(name, model) for each model of the task, and their signature. Raises LoadError."""
        models: list[tuple[str, Model | None]] = []
        digests: dict[str, str] = {}
        for name, resource_name in manifest.resources().items():
            resource = read(resource_name, self._directories)
            if resource is None:
                models.append((resource_name, None))
                digests[resource_name] = resource_name
            else:
                models.append((name, self._model(resource_name, resource)))
                digests[name] = resource.digest
        return models, signature(digests)

    def _model(self, name: str, resource: Resource) -> Model:
        if resource.digest not in self._models:
            from reefd._engine import ModelError
            from reefd.resource.load import model_spec

            try:
                self._models[resource.digest] = self._engine.load(model_spec(resource))
            except ModelError as error:
                raise LoadError(f"model {name}: {resource.path}: {error}") from error
        return self._models[resource.digest]

    def keep_only(self, used: Iterable[Model | None]) -> None:
        """Forgets the models that no task uses; the engine frees them when nothing refers to them any more."""
        wanted = {id(model) for model in used}
        self._models = {digest: model for digest, model in self._models.items() if id(model) in wanted}


def signature(digests: Mapping[str, str]) -> int:
    """64 bits that name the models of a task, in order, to the byte: a session is adopted only by the same ones."""
    text = "\n".join(f"{name}={digest}" for name, digest in digests.items())
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") or 1
