# SPDX-License-Identifier: Apache-2.0
"""Inputs for a model that is run by hand: from an .npz file, or seeded random ones."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from reefd.resource import Resource, Storage


class InputError(Exception):
    """What is wrong with the arrays that were given."""


def read(path: Path, resource: Resource) -> list[np.ndarray]:
    """The model's inputs, in order, from an .npz file with one array for each, by name. InputError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise InputError(f"{path}: not an .npz file; numpy.savez writes one")
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, KeyError, BadZipFile) as error:
        raise InputError(f"{path}: not a whole .npz file, as numpy.savez writes it ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    return check(resource, arrays)


def check(resource: Resource, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The model's inputs, in order, from arrays by name. InputError: one is missing, or has another shape or type."""
    storages = resource.model.storage
    return [_checked(storages[index], arrays) for index in resource.model.inputs]


def _checked(storage: Storage, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    array = arrays.get(storage.name)
    if array is None:
        raise InputError(f"input {storage.name!r} is missing; given: {', '.join(sorted(arrays)) or 'nothing'}")
    if array.dtype.name != storage.stype or list(array.shape) != storage.shape:
        raise InputError(
            f"input {storage.name!r} is {array.dtype.name} {list(array.shape)}, "
            f"the model wants {storage.stype} {storage.shape}"
        )
    return np.ascontiguousarray(array)


def random(resource: Resource, seed: int) -> list[np.ndarray]:
    """The model's inputs, in order: floats of standard normal distribution; integers 0 and 1, which every table of
    tokens or classes has."""
    generator = np.random.default_rng(seed)
    storages = resource.model.storage
    return [_random(storages[index], generator) for index in resource.model.inputs]


def _random(storage: Storage, generator: np.random.Generator) -> np.ndarray:
    if storage.stype.startswith("float"):
        return generator.standard_normal(storage.shape, np.float32).astype(storage.stype)
    return generator.integers(0, 2, storage.shape).astype(storage.stype)


def outputs(resource: Resource) -> dict[str, np.ndarray]:
    """Room for the model's outputs, by name, in order."""
    storages = resource.model.storage
    return {storages[i].name: np.zeros(storages[i].shape, storages[i].stype) for i in resource.model.outputs}
