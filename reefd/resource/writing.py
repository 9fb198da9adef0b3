# SPDX-License-Identifier: Apache-2.0
"""Writing a resource folder: whole, in a temporary sibling, then renamed into place, so a reader never sees half of
one."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from reefd.resource import check, tensors
from reefd.resource.code import Code, CodeFile
from reefd.resource.errors import ResourceError
from reefd.resource.profile import Profile, file_name
from reefd.resource.read import MODEL, SUMS, WEIGHTS, Resource, code_file_name, code_name, read, read_sums
from reefd.resource.schema import ModelFile

if TYPE_CHECKING:
    import numpy as np

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write(
    folder: Path | str, model: ModelFile, weights: Mapping[str, np.ndarray],
    code: Mapping[str, Code] | None = None,
) -> None:  # fmt: skip
    """Writes the folder, replacing an older resource of that name. `code`: for each GPU.
    ResourceError: it is something else, or the disk fails."""
    folder = Path(folder).absolute()
    try:
        check.model(model)
        check.weights(model, weights)
    except check.Fault as fault:
        raise ResourceError(folder / MODEL, str(fault)) from None
    if folder.is_symlink() or (folder.exists() and not _replaceable(folder)):
        raise ResourceError(folder, "exists and is not a resource folder; give another name or remove it")

    def fill(staging: Path) -> dict[str, str]:
        stored = tensors.narrowed(weights) if model.precision == "float16" else weights
        files = {WEIGHTS: tensors.serialize(stored)}
        sums = {MODEL: _write_file(staging / MODEL, [_json(model)])}
        for processor, made in (code or {}).items():
            files[code_name(processor)] = tensors.serialize(made.objects)
            files[code_file_name(processor)] = [_json(made.file)]
        return sums | {name: _write_file(staging / name, pieces) for name, pieces in files.items()}

    _replace(folder, fill)


def write_profile(resource: Resource, profile: Profile) -> None:
    """Puts a profile into the folder that `resource` was read from; profiles of other devices stay. ResourceError: the
    folder is another build by now, or the disk fails."""
    _write_beside(resource, {file_name(profile.device): [_json(profile)]})


def write_code(resource: Resource, processor: str, code: Code) -> None:
    """Puts another build of its code for one GPU into the folder that `resource` was read from. ResourceError: the
    folder is another build by now, or the disk fails."""
    files = {code_name(processor): tensors.serialize(code.objects), code_file_name(processor): [_json(code.file)]}
    _write_beside(resource, files)


def _write_beside(resource: Resource, files: Mapping[str, Iterable[bytes | memoryview]]) -> None:
    """Replaces files of a resource that others stay valid with."""
    folder = resource.path.absolute()
    if read(folder).digest != resource.digest:
        raise ResourceError(folder, "was compiled again meanwhile; do this again")

    def fill(staging: Path) -> dict[str, str]:
        sums = read_sums(folder)
        for kept in sums:
            if kept not in files:
                _link(folder / kept, staging / kept)
        return sums | {name: _write_file(staging / name, pieces) for name, pieces in files.items()}

    _replace(folder, fill)


def _json(document: ModelFile | Profile | CodeFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _link(source: Path, target: Path) -> None:
    """Weights may be large: the new folder shares them with the old one where the file system can."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o644)


def _replace(folder: Path, fill: Callable[[Path], dict[str, str]]) -> None:
    """Has `fill` make the files in a new folder and say their hashes, then puts it in the place of `folder`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ResourceError(folder, error.strerror or "cannot be made") from None
    try:
        sums = fill(staging)
        _write_file(staging / SUMS, ["".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()])
        staging.chmod(0o755)
        _sync(staging)
        _into_place(staging, folder)
        _sync(folder.parent)
    except OSError as error:
        raise ResourceError(folder, error.strerror or "cannot be written") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replaceable(folder: Path) -> bool:
    """An older resource, or an empty folder."""
    return folder.is_dir() and ((folder / SUMS).is_file() or not any(folder.iterdir()))


def _write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _into_place(staging: Path, folder: Path) -> None:
    """Afterwards `staging` is the old folder, or gone. Exchanging leaves no moment without a resource."""
    if not folder.exists():
        staging.rename(folder)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(staging), os.fsencode(folder)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        shutil.rmtree(folder)  # a file system that cannot exchange
        staging.rename(folder)
