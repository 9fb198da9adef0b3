# SPDX-License-Identifier: Apache-2.0
"""ONNX tensors as arrays, external data included. A file may name only data inside its own folder."""

import stat
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

ELEMENT_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64",
    TensorProto.INT64: "int64", TensorProto.INT32: "int32", TensorProto.INT16: "int16", TensorProto.INT8: "int8",
    TensorProto.UINT64: "uint64", TensorProto.UINT32: "uint32", TensorProto.UINT16: "uint16", TensorProto.UINT8:
    "uint8", TensorProto.BOOL: "bool",
}  # fmt: skip
TENSOR_TYPES = {name: code for code, name in ELEMENT_TYPES.items()}


def type_name(code: int) -> str:
    """As ONNX calls it, or the number of a type that nobody knows."""
    return TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else str(code)


def tensor_array(tensor: TensorProto, folder: Path) -> np.ndarray:
    """The tensor's data. ValueError: an element type that no kernel has, or data that does not fit its shape."""
    if tensor.data_type not in ELEMENT_TYPES:
        raise ValueError(f"element type {type_name(tensor.data_type)} is not supported")
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, folder)
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"its data does not fit its shape {list(tensor.dims)}: {error}") from None


def _external(tensor: TensorProto, folder: Path) -> np.ndarray:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(root):
        raise ValueError(f"its external data {location!r} lies outside the model's folder")
    dtype = np.dtype(ELEMENT_TYPES[tensor.data_type])
    size = dtype.itemsize
    for extent in tensor.dims:
        if extent < 0:
            raise ValueError(f"shape {list(tensor.dims)}")
        size *= extent
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"its external data {location!r} is not a regular file")
        if offset < 0 or length != size or offset + length > status.st_size:
            raise ValueError(
                f"its external data is bytes {offset} to {offset + length} of {location!r} ({status.st_size} bytes), "
                f"its shape needs {size}"
            )
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise ValueError(f"its external data {location!r}: {error.strerror}") from None
    if len(content) != size:
        raise ValueError(f"its external data {location!r} is truncated")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(tuple(tensor.dims))
