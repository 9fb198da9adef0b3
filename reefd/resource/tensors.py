# SPDX-License-Identifier: Apache-2.0
"""The safetensors format: reading with every bound checked, and writing. Arrays are views of the file's bytes.

numpy is imported with the first array that somebody looks at: a daemon only hands the bytes on, and numpy alone would
take it as long to start as everything else together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from reefd.resource.errors import ResourceError
from reefd.resource.schema import ITEM_SIZES, MAX_RANK

if TYPE_CHECKING:
    import numpy as np

_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NAMES = {name: code for code, name in _CODES.items()}
_MAX_HEADER = 64 << 20
_DATA_ALIGNMENT = 64


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as the file holds it. `data` is read-only."""

    dtype: str  # numpy's name
    shape: list[int]
    data: memoryview


class Tensors(Mapping[str, "np.ndarray"]):
    """Read-only arrays by name, made when they are asked for."""

    def __init__(self, stored: dict[str, Stored]) -> None:
        self.stored = stored
        self._arrays: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            import numpy as np

            stored = self.stored[name]
            self._arrays[name] = np.frombuffer(stored.data, stored.dtype).reshape(stored.shape)
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def described(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[str, list[int]]]:
    """dtype and shape of each."""
    if isinstance(tensors, Tensors):
        return {name: (stored.dtype, stored.shape) for name, stored in tensors.stored.items()}
    return {name: (array.dtype.name, list(array.shape)) for name, array in tensors.items()}


def buffer_of(tensors: Mapping[str, np.ndarray], name: str) -> memoryview:
    """The bytes of a tensor that is contiguous."""
    return tensors.stored[name].data if isinstance(tensors, Tensors) else tensors[name].data


def parse(path: Path, content: memoryview) -> Tensors:
    """ResourceError: damaged, truncated, or not what the format allows."""
    if len(content) < 8:
        raise ResourceError(path, f"truncated: {len(content)} bytes, a header needs 8")
    length = int.from_bytes(content[:8], "little")
    if length > min(_MAX_HEADER, len(content) - 8):
        raise ResourceError(path, f"header of {length} bytes in a file of {len(content)}")
    try:
        header = msgspec.json.decode(content[8 : 8 + length], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in header.items()}
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ResourceError(path, f"header: {error}") from None
    data = content[8 + length :]
    end = 0
    stored: dict[str, Stored] = {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in _CODES:
            raise ResourceError(path, f"tensor {name!r}: dtype {entry.dtype!r} is unknown")
        if len(entry.shape) > MAX_RANK or any(extent < 0 for extent in entry.shape):
            raise ResourceError(path, f"tensor {name!r}: shape {entry.shape}")
        dtype = _CODES[entry.dtype]
        size = ITEM_SIZES[dtype]
        for extent in entry.shape:
            size *= extent
        begin, stop = entry.data_offsets
        if begin != end or stop - begin != size or stop > len(data):
            raise ResourceError(
                path, f"tensor {name!r}: bytes {begin} to {stop} of {len(data)}, its shape needs {size}"
            )
        end = stop
        stored[name] = Stored(dtype, entry.shape, data[begin:stop])
    if end != len(data):
        raise ResourceError(path, f"{len(data) - end} bytes after the last tensor")
    return Tensors(stored)


def narrowed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Matrices of 32-bit floats that lose nothing by it, as 16-bit ones."""
    import numpy as np

    return {name: array.astype(np.float16) if _half(array) else array for name, array in tensors.items()}


def _half(array: np.ndarray) -> bool:
    import numpy as np

    if array.dtype != np.float32 or array.ndim < 2:
        return False
    with np.errstate(over="ignore"):
        return np.array_equal(array.astype(np.float16).astype(np.float32), array)


def widened(tensors: Mapping[str, np.ndarray], dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The same with 16-bit floats as 32-bit ones where `dtypes` says so."""
    import numpy as np

    wide = {}
    for name, array in tensors.items():
        if array.dtype == np.float16 and dtypes.get(name) == "float32":
            array = array.astype(np.float32)
            array.flags.writeable = False
        wide[name] = array
    return wide


def serialize(tensors: Mapping[str, np.ndarray]) -> Iterable[bytes | memoryview]:
    """The file in pieces. Wide items come first, so that each tensor is aligned to its own item."""
    import numpy as np

    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, dict[str, object]] = {}
    offset = 0
    for name, array in ordered:
        header[name] = {
            "dtype": _NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [offset, offset +
            array.nbytes],
        }  # fmt: skip
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _DATA_ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for _, array in ordered:
        if array.size:
            yield np.ascontiguousarray(array).reshape(-1).data.cast("B")
