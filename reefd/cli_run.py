# SPDX-License-Identifier: Apache-2.0
"""reefctl run: a resource on a device, without a daemon."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter

from reefd import resource
from reefd.resource import Resource, ResourceError, Storage

if TYPE_CHECKING:
    from collections.abc import Mapping


def run(
    folder: Annotated[Path, Parameter(help="a resource folder, as `reefctl compile` makes it")],
    /,
    *,
    inputs: Annotated[Path, Parameter(help="an .npz file with one array for each of the model's inputs, by name")],
    outputs: Annotated[Path, Parameter(help="the .npz file to write: the model's outputs, by name")],
    workers: Annotated[int, Parameter(help="worker threads; 0: one for each CPU")] = 0,
    preemptible: Annotated[bool, Parameter(help="run the kernels of best-effort work", negative="")] = False,
) -> int:
    """Run a compiled model once and write its outputs."""
    from reefd import _engine

    try:
        loaded = resource.read(folder)
        feeds = _read_inputs(inputs, loaded)
        results = run_once(loaded, feeds, workers=workers, preemptible=preemptible)
        with outputs.open("wb") as file:
            np.savez(file, **results)  # type: ignore[arg-type]
    except (ResourceError, InputError, _engine.ModelError, _engine.EngineError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class InputError(Exception):
    """What is wrong with the arrays that were given."""


def run_once(
    loaded: Resource, feeds: "Mapping[str, np.ndarray]", *, workers: int = 0, preemptible: bool = False
) -> dict[str, np.ndarray]:
    """The outputs by name. InputError: an array is missing, or has another shape or type than the model's input."""
    from reefd import _engine
    from reefd.resource.load import model_spec

    storages = loaded.model.storage
    arrays = [_checked(storages[index], feeds) for index in loaded.model.inputs]
    results = {
        storages[index].name: np.zeros(storages[index].shape, storages[index].stype) for index in loaded.model.outputs
    }
    engine = _engine.Engine(device="cpu", workers=workers, realtime=False)
    model = engine.load(model_spec(loaded))
    engine.run(model, arrays, list(results.values()), preemptible=preemptible)
    return results


def _read_inputs(path: Path, loaded: Resource) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise InputError(f"{path}: not an .npz file")
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, KeyError) as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _checked(storage: Storage, feeds: "Mapping[str, np.ndarray]") -> np.ndarray:
    array = feeds.get(storage.name)
    if array is None:
        raise InputError(f"input {storage.name!r} is missing; given: {', '.join(sorted(feeds)) or 'nothing'}")
    if array.dtype.name != storage.stype or list(array.shape) != storage.shape:
        raise InputError(
            f"input {storage.name!r} is {array.dtype.name} {list(array.shape)}, "
            f"the model wants {storage.stype} {storage.shape}"
        )
    return np.ascontiguousarray(array)
