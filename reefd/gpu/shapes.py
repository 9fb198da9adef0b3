# SPDX-License-Identifier: Apache-2.0
"""Strides of tensors, and how a walk over several of them gets few dimensions."""

from collections.abc import Sequence


def dense_strides(shape: Sequence[int]) -> list[int]:
    """Row-major strides in elements."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return strides


def broadcast_strides(operand: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Of an operand that is walked as `shape`; 0 where it is repeated."""
    padded = [1] * (len(shape) - len(operand)) + list(operand)
    return [0 if d == 1 else s for d, s in zip(padded, dense_strides(padded), strict=True)]


def merge(shape: Sequence[int], operands: list[list[int]], rank: int) -> tuple[list[int], list[list[int]]]:
    """Joins neighbouring dimensions that every operand walks as one, and pads to `rank` dimensions. ValueError: there
    are more."""
    dims: list[int] = []
    strides: list[list[int]] = [[] for _ in operands]
    for i, d in enumerate(shape):
        if d == 1:
            continue
        if dims and all(s[-1] == o[i] * d for s, o in zip(strides, operands, strict=True)):
            dims[-1] *= d
            for s, o in zip(strides, operands, strict=True):
                s[-1] = o[i]
        else:
            dims.append(d)
            for s, o in zip(strides, operands, strict=True):
                s.append(o[i])
    if not dims:
        dims, strides = [1], [[1] for _ in operands]
    if len(dims) > rank:
        raise ValueError(f"more than {rank} dimensions after joining: {list(shape)}")
    lead = rank - len(dims)
    return [1] * lead + dims, [[0] * lead + s for s in strides]


def numbered(letter: str, values: Sequence[int]) -> dict[str, int]:
    """Constants D0, D1, ... of a kernel."""
    return {f"{letter}{i}": value for i, value in enumerate(values)}
