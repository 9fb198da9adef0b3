# SPDX-License-Identifier: Apache-2.0
"""Reading a resource folder. Every file is read once into memory, and what was hashed is what is used."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from reefd.resource import check, profile, tensors
from reefd.resource import code as code_file
from reefd.resource.code import Code
from reefd.resource.errors import ResourceError
from reefd.resource.profile import Profile
from reefd.resource.schema import ModelFile

if TYPE_CHECKING:
    import numpy as np

MODEL = "model.json"
WEIGHTS = "model.safetensors"
SUMS = "SHA256SUMS"
_MAX_MODEL = 64 << 20
_MAX_CODE = 1 << 30
_MAX_WEIGHTS = 16 << 30
_MAX_SUMS = 64 << 10
_CODE = re.compile(r"code\.([a-z0-9_]{1,32})\.safetensors")
_PROFILE = re.compile(r"profile\.([a-z]{1,16})\.json")
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._-]*)")


_HINT = ": `reefctl compile MODEL.onnx -o FOLDER` makes a resource"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that passed every check. `weights` holds one read-only array for each weight storage, by name."""

    path: Path
    model: ModelFile
    weights: Mapping[str, np.ndarray]
    digest: str  # of the two: names exactly this build
    profiles: dict[str, Profile] = field(default_factory=dict)  # by device: what was measured, which may be stale
    code_sums: Mapping[str, str] = field(default_factory=dict)  # by processor: the hash of code.<processor>.json

    def code_sum(self, target: str) -> str:
        """Names exactly the code that a GPU loads; `target` "" (the driver does not tell): the only one. "": none."""
        if target or len(self.code_sums) != 1:
            return self.code_sums.get(target, "")
        return next(iter(self.code_sums.values()))


def read(folder: Path | str) -> Resource:
    """Reads and checks a folder. ResourceError names the file and the reason."""
    folder = Path(folder)
    directory = _open(folder)
    try:
        sums = _read_sums(directory, folder)
        document = _read_hashed(directory, folder, MODEL, _MAX_MODEL, sums)
        weight_file = _read_hashed(directory, folder, WEIGHTS, _MAX_WEIGHTS, sums)
        measured = {
            match[1]: _read_hashed(directory, folder, name, profile.MAX_PROFILE, sums, "profile it")
            for name in sums
            if (match := _PROFILE.fullmatch(name))
        }
    finally:
        os.close(directory)
    model = _parse_model(folder / MODEL, document)
    weights: Mapping[str, np.ndarray] = tensors.parse(folder / WEIGHTS, weight_file)
    if model.precision == "float16":
        weights = tensors.widened(weights, {storage.name: storage.stype for storage in model.storage})
    try:
        check.model(model)
        check.weights(model, weights)
    except check.Fault as fault:
        raise ResourceError(folder / MODEL, str(fault)) from None
    profiles = {
        device: profile.parse(folder / profile.file_name(device), content, model.kernels)
        for device, content in measured.items()
    }
    codes = {match[1]: sums.get(code_file_name(match[1]), "") for name in sums if (match := _CODE.fullmatch(name))}
    return Resource(folder, model, weights, _digest(sums), profiles, codes)


def code_name(processor: str) -> str:
    """The file that holds a GPU's code objects."""
    return f"code.{processor}.safetensors"


def code_file_name(processor: str) -> str:
    """The file that says what they hold."""
    return f"code.{processor}.json"


def read_code(resource: Resource, processor: str) -> Code | None:
    """The code for a GPU; None where the model was not compiled for it. ResourceError: damaged, or the folder is
    another build by now."""
    name, file_name = code_name(processor), code_file_name(processor)
    directory = _open(resource.path)
    try:
        sums = _read_sums(directory, resource.path)
        if _digest(sums) != resource.digest:
            raise ResourceError(resource.path, "was compiled again meanwhile")
        if name not in sums:
            return None
        content = _read_hashed(directory, resource.path, name, _MAX_CODE, sums)
        facts = _read_hashed(directory, resource.path, file_name, code_file.MAX_FILE, sums)
    finally:
        os.close(directory)
    file = code_file.parse(resource.path / file_name, facts)
    return Code(tensors.parse(resource.path / name, content), file)


def processors(resource: Resource) -> list[str]:
    """The GPUs that a resource holds code for. ResourceError."""
    if not resource.digest:  # made in memory, without a folder
        return []
    return sorted(match[1] for name in read_sums(resource.path) if (match := _CODE.fullmatch(name)))


def _digest(sums: dict[str, str]) -> str:
    """Measuring a model again does not make it another one."""
    return hashlib.sha256("".join(f"{sums[name]}  {name}\n" for name in (MODEL, WEIGHTS)).encode()).hexdigest()


def _open(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ResourceError(folder, (error.strerror or "cannot be opened") + _HINT) from None


def _read_file(directory: int, folder: Path, name: str, limit: int) -> memoryview:
    path = folder / name
    try:
        # Without O_NONBLOCK a FIFO put in the place of a file would stop the daemon.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise ResourceError(path, error.strerror or "cannot be opened") from None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ResourceError(path, "not a regular file")
        if status.st_size > limit:
            raise ResourceError(path, f"{status.st_size} bytes, more than the {limit} allowed")
        content = bytearray(status.st_size)
        view, filled = memoryview(content), 0
        try:
            while filled < len(view) and (got := file.readinto(view[filled:])):
                filled += got
        except OSError as error:
            raise ResourceError(path, error.strerror or "cannot be read") from None
    return view[:filled].toreadonly()


def read_sums(folder: Path) -> dict[str, str]:
    """The hash of each file, by name. ResourceError."""
    directory = _open(folder)
    try:
        return _read_sums(directory, folder)
    finally:
        os.close(directory)


def _read_sums(directory: int, folder: Path) -> dict[str, str]:
    path = folder / SUMS
    try:
        os.stat(SUMS, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise ResourceError(path, "No such file or directory" + _HINT) from None
    content = bytes(_read_file(directory, folder, SUMS, _MAX_SUMS))
    sums: dict[str, str] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        match = _SUM_LINE.fullmatch(line)
        if not match:
            raise ResourceError(path, f"line {number} is not `<sha256>  <file name>`")
        digest, name = match.groups()
        if name in sums:
            raise ResourceError(path, f"line {number} names {name} again")
        sums[name] = digest
    return sums


def _read_hashed(
    directory: int, folder: Path, name: str, limit: int, sums: dict[str, str], repair: str = "compile the model"
) -> memoryview:
    if name not in sums:
        raise ResourceError(folder / SUMS, f"has no hash of {name}")
    content = _read_file(directory, folder, name, limit)
    if hashlib.sha256(content).hexdigest() != sums[name]:
        raise ResourceError(folder / name, f"its hash is not the one in {SUMS}: damaged or changed; {repair} again")
    return content


def _parse_model(path: Path, content: memoryview) -> ModelFile:
    try:
        return msgspec.json.decode(content, type=ModelFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResourceError(path, str(error)) from None
