# SPDX-License-Identifier: Apache-2.0
"""Tensors of a loan: numpy arrays in shared memory that know whether they may be touched.

A `Tensor` stands for an array in a slot. It behaves like one (indexing, assignment, arithmetic, numpy's functions, the
array's own methods), but each use first asks whether the loan is still held and not in flight, and raises `StaleLoan`
or `InFlight` if not. What numpy makes of it (`np.asarray(tensor)`, `tensor.reshape(...)`, a slice) is a plain array on
the same memory. Numpy cannot ask then, so such an array may show the slot's next request; but it keeps the mapping
alive, also after the client was closed, and never touches unmapped memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from libreef._reef import lib
from libreef.errors import ReefError

Array = npt.NDArray[Any]

# How a loan tells its tensors what they may do: [None] they may be used, otherwise [the error to raise].
Permit = list[ReefError | None]

DTYPES: dict[int, np.dtype[Any]] = {
    lib.REEF_FLOAT32: np.dtype(np.float32),
    lib.REEF_UINT8: np.dtype(np.uint8),
    lib.REEF_INT8: np.dtype(np.int8),
    lib.REEF_UINT16: np.dtype(np.uint16),
    lib.REEF_INT16: np.dtype(np.int16),
    lib.REEF_INT32: np.dtype(np.int32),
    lib.REEF_INT64: np.dtype(np.int64),
    lib.REEF_BOOL: np.dtype(np.bool_),
    lib.REEF_FLOAT16: np.dtype(np.float16),
    lib.REEF_FLOAT64: np.dtype(np.float64),
    lib.REEF_UINT32: np.dtype(np.uint32),
    lib.REEF_UINT64: np.dtype(np.uint64),
}


class _Memory:
    """What numpy keeps as an array's base: it holds the mapping (reef_hold) for as long as the array lives."""

    __slots__ = ("__array_interface__", "_hold")

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], writable: bool, hold: object
    ) -> None:
        self._hold = hold
        self.__array_interface__ = {
            "version": 3,
            "data": (address, not writable),
            "shape": shape,
            "typestr": dtype.str,
        }


def map_array(address: int, shape: tuple[int, ...], dtype: np.dtype[Any], writable: bool, hold: object) -> Array:
    """An array over mapped memory that keeps `hold` alive."""
    return np.asarray(_Memory(address, shape, dtype, writable, hold))


def _plain(value: Any) -> Any:
    """The arrays behind the tensors in arguments of numpy's functions."""
    if isinstance(value, Tensor):
        return value.array
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


class Tensor(NDArrayOperatorsMixin):
    """One input or output of a loan. Inputs can be written, outputs only read. See the module's docstring."""

    __slots__ = ("_array", "_permit")

    def __init__(self, array: Array, permit: Permit) -> None:
        self._array = array
        self._permit = permit

    @property
    def array(self) -> Array:
        """The plain array. Valid while the loan is held; afterwards it shows whatever the slot holds."""
        error = self._permit[0]
        if error is not None:
            raise type(error)(error.code, str(error))
        return self._array

    def __getitem__(self, key: Any) -> Any:
        return self.array[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.array[key] = _plain(value)

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)

    def __bool__(self) -> bool:
        return bool(self.array)

    def __float__(self) -> float:
        return float(self.array)

    def __int__(self) -> int:
        return int(self.array)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        array = self.array
        if copy:
            return np.array(array, dtype=dtype)
        if dtype is None or np.dtype(dtype) == array.dtype:
            return array
        if copy is False:
            raise ValueError(f"a {array.dtype} tensor cannot become {np.dtype(dtype)} without a copy")
        return array.astype(dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out")
        result = getattr(ufunc, method)(*_plain(inputs), **_plain(kwargs))
        # `tensor += 1` must leave a tensor behind, not the array.
        return out[0] if isinstance(out, tuple) and len(out) == 1 and result is not None else result

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return function(*_plain(args), **_plain(kwargs))

    def __getattr__(self, name: str) -> Any:
        # Methods and attributes of the array: shape, dtype, reshape, argmax, ...
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.array, name)

    def __repr__(self) -> str:
        error = self._permit[0]
        state = repr(self._array) if error is None else f"<{type(error).__name__}: {error}>"
        return f"Tensor({state})"


class Tensors(Mapping[str, Tensor]):
    """The inputs or the outputs of a loan, by name or by index. `inputs[name] = array` copies into the slot."""

    __slots__ = ("_names", "_tensors")

    def __init__(self, names: dict[str, int], tensors: tuple[Tensor, ...]) -> None:
        self._names = names
        self._tensors = tensors

    def __getitem__(self, key: str | int) -> Tensor:
        if isinstance(key, int):
            return self._tensors[key]
        try:
            return self._tensors[self._names[key]]
        except KeyError:
            raise KeyError(f"no tensor {key!r}; there are {', '.join(self._names)}") from None

    def __setitem__(self, key: str | int, value: npt.ArrayLike) -> None:
        self[key][...] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._tensors)

    def copy(self) -> dict[str, Array]:
        """Arrays of their own, which outlive everything."""
        return {name: self._tensors[index].array.copy() for name, index in self._names.items()}

    def __repr__(self) -> str:
        return f"Tensors({', '.join(self._names)})"
