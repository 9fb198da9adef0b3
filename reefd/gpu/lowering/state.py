# SPDX-License-Identifier: Apache-2.0
"""What the operators' functions share: the model being lowered, its constants, and the launches of one instance.

In half precision everything in the arena that the schedule holds as float32 is stored as halves; inputs and outputs
keep the types that clients see. So the operands of one instance may differ in type. A kernel that needs them all of
one type reads and writes through `read` and `write`, which convert at the edges of a network.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reefd.resource.schema import ITEM_SIZES, ModelFile, Storage
from reefd.resource.schema import Kernel as Scheduled

from ..conv import ConvShape, Tile
from ..dtypes import ACTIVATIONS, FLOATS
from ..elementwise import unary_kernel
from ..instance import Kernel, ceil_div
from ..target import Target
from ..tiles import candidate_tiles

Array = NDArray[Any]


class LowerError(Exception):
    """A kernel instance that the GPU kernels cannot compute. The message names it and the reason."""


class Workspace(NamedTuple):
    """Bytes that only the kernels of one instance use, and where they begin in the memory that all instances share."""

    bytes: int
    offset: int = 0


Argument = int | str | Workspace | None  # a storage's index, a constant's name, a workspace, or nothing


class Launch(NamedTuple):
    """A kernel and its arguments."""

    kernel: Kernel
    args: list[Argument]


class Lowering:
    """A model on its way to one target."""

    def __init__(
        self,
        model: ModelFile,
        weights: Mapping[str, Array],
        target: Target,
        dtype: str,
        tiles: Mapping[ConvShape, Tile],
    ) -> None:
        self.model, self.weights, self.target, self.half = model, weights, target, dtype == "float16"
        self.constants: dict[str, Array] = {}
        self.dtypes = [self._dtype(storage) for storage in model.storage]
        self._known = tiles
        self.tiles: dict[ConvShape, Tile] = {}
        self._launches: list[Launch] = []
        self._after: list[Launch] = []
        self._workspace = 0

    def _dtype(self, storage: Storage) -> str:
        narrow = self.half and storage.kind == "arena" and storage.stype == "float32"
        return "float16" if narrow else storage.stype

    def place(self, index: int) -> tuple[str | int, int]:
        """(memory, byte offset): memory is "arena", or the index of the input, output or weight storage."""
        storage = self.model.storage[index]
        if storage.base >= 0:
            memory, start = self.place(storage.base)
            narrowed = self.dtypes[index] != storage.stype
            return memory, start + (storage.offset // 2 if narrowed else storage.offset)
        return ("arena", storage.offset) if storage.kind == "arena" else (index, 0)

    def shape(self, index: int) -> list[int]:
        return self.model.storage[index].shape

    def size(self, index: int) -> int:
        return math.prod(self.shape(index))

    @property
    def dtype(self) -> str:
        """In which floats are stored between kernels, and multiplied."""
        return "float16" if self.half else "float32"

    # ---- constants

    def constant(self, name: str, value: Array) -> str:
        self.constants.setdefault(name, np.ascontiguousarray(value))
        return name

    def is_weight(self, index: int) -> bool:
        return self.model.storage[index].kind == "weight"

    def weight(self, index: int) -> Array:
        storage = self.model.storage[index]
        base = self.model.storage[storage.base] if storage.base >= 0 else storage
        if storage.kind != "weight":
            raise LowerError(f"{storage.name!r} must be a constant")
        return self.weights[base.name].reshape(storage.shape)

    def vector(self, name: str, index: int) -> str:
        """A constant as floats."""
        return self.constant(name, self.weight(index).astype(np.float32).reshape(-1))

    # ---- the launches of the instance in work

    def launch(self, kernel: Kernel, *args: Argument) -> None:
        self._launches.append(Launch(kernel, list(args)))

    def finish(self) -> list[Launch]:
        """All launches of the instance, in order."""
        launches = self._launches + self._after
        self._launches, self._after, self._workspace = [], [], 0
        return launches

    def workspace(self, nbytes: int) -> Workspace:
        given = Workspace(nbytes, self._workspace)
        self._workspace += ceil_div(nbytes, 256) * 256
        return given

    def read(self, index: int, dtype: str) -> Argument:
        """What a kernel reads as `dtype`: converted beforehand where it is another float, once and for all where it is
        a constant."""
        have = self.dtypes[index]
        if have == dtype:
            return index
        self._check_floats(have, dtype)
        if self.is_weight(index):
            name = self.model.storage[index].name
            return self.constant(f"{name}:{dtype}", self.weight(index).astype(dtype))
        count = self.size(index)
        between = self.workspace(count * ITEM_SIZES[dtype])
        self.launch(_conversion(count, have, dtype), index, None, None, between)
        return between

    def write(self, index: int, dtype: str) -> Argument:
        """Where a kernel writes `dtype`, converted afterwards where the storage has another float type."""
        have = self.dtypes[index]
        if have == dtype:
            return index
        self._check_floats(have, dtype)
        count = self.size(index)
        between = self.workspace(count * ITEM_SIZES[dtype])
        self._after.append(Launch(_conversion(count, dtype, have), [between, None, None, index]))
        return between

    def float_of(self, *indices: int) -> str:
        """The type of a kernel whose operands are floats of one size: the stored one unless all are wider. LowerError:
        others are among them."""
        for index in indices:
            self._check_floats(self.dtypes[index], self.dtype)
        return "float32" if all(self.dtypes[index] == "float32" for index in indices) else self.dtype

    @staticmethod
    def _check_floats(*dtypes: str) -> None:
        if not all(dtype in FLOATS for dtype in dtypes):
            raise LowerError(f"tensors of the type {next(d for d in dtypes if d not in FLOATS)}")

    def tile(self, shape: ConvShape) -> Tile:
        if shape not in self.tiles:
            tiles = candidate_tiles(shape, self.target)
            if not tiles:
                raise LowerError("no tile fits this shape")
            known = self._known.get(shape)
            self.tiles[shape] = known if known in tiles else tiles[0]
        return self.tiles[shape]


def _conversion(count: int, dtype: str, y_dtype: str) -> Kernel:
    """Of one float type to the other, whole chunks at a time."""
    return unary_kernel(1, count, activation="none", dtype=dtype, y_dtype=y_dtype)


def integer(k: Scheduled, name: str, default: int | None = None) -> int:
    """An attribute; KeyError where it is missing and there is no default."""
    return int(k.attributes[name] if default is None else k.attributes.get(name, default))  # type: ignore[arg-type]


def integers(k: Scheduled, name: str) -> list[int]:
    return list(k.attributes[name])  # type: ignore[arg-type]


def activation_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """An epilogue's function and its two numbers, as the kernels' builders take them. LowerError: there is none."""
    name = str(attributes.get("activation", "none"))
    given = {"alpha": float(attributes.get("alpha", 0.0)), "beta": float(attributes.get("beta", 0.0))}
    if name not in (*ACTIVATIONS, "prelu"):
        raise LowerError(f"activation {name!r}")
    return {"activation": "none" if name == "prelu" else name, **given}


def named_arguments(k: Scheduled, first: list[str], optional: list[str], last: list[str]) -> dict[str, int]:
    """An instance's arguments by name; an optional one is there where the attribute of its name says so, or is the
    activation."""
    a = k.attributes
    names = [*first, *(name for name in optional if a.get(name) or name == a.get("activation")), *last]
    return dict(zip(names, k.args, strict=True))
