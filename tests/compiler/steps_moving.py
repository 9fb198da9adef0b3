# SPDX-License-Identifier: Apache-2.0
"""The operators of a random chain that only move elements."""

import numpy as np

from .chains import MOST_ELEMENTS, Chain, Tensor
from .steps import activation, growing, step


@step(lambda value: value.rank >= 2)
def transpose(chain: Chain, x: Tensor) -> None:
    perm = [int(axis) for axis in chain.random.permutation(x.rank)]
    chain.one("Transpose", [x], exact=x.exact, perm=perm)


@step(lambda value: value.size > 1)
def reshape(chain: Chain, x: Tensor) -> None:
    """Splits an axis, joins two neighbours, or flattens."""
    shape = list(x.shape)
    kind = chain.choose("split", "join", "flatten", "insert", "drop")
    axis = chain.number(0, x.rank - 1)
    if kind == "flatten":
        chain.one("Flatten", [x], exact=x.exact, axis=chain.number(0, x.rank))
        return
    if kind == "insert" and x.rank < 6:
        chain.one("Unsqueeze", [x, chain.constant(np.array([axis]))], exact=x.exact)
        return
    if kind == "drop" and 1 in shape and x.rank > 1:
        chain.one("Squeeze", [x, chain.constant(np.array([shape.index(1)]))], exact=x.exact)
        return
    if kind == "join" and x.rank > 1:
        axis = min(axis, x.rank - 2)
        shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
    elif x.rank < 6:
        factors = [n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]
        outer = chain.choose(*factors)
        shape[axis : axis + 1] = [outer, shape[axis] // outer]
    if chain.flag():
        shape[chain.number(0, len(shape) - 1)] = -1
    chain.one("Reshape", [x, chain.constant(np.array(shape))], exact=x.exact)


@step(lambda value: value.rank >= 1 and growing(3)(value))
def concat(chain: Chain, x: Tensor) -> None:
    axis = chain.number(0, x.rank - 1)
    fitting = [
        value for value in chain.values
        if value.dtype == "float32" and value.rank == x.rank
        and all(a == b for place, (a, b) in enumerate(zip(value.shape, x.shape, strict=True)) if place != axis)
    ]  # fmt: skip
    parts: list[Tensor | str] = [x, chain.choose(*fitting)]
    if chain.flag():
        shape = list(x.shape)
        shape[axis] = chain.number(1, 3)
        parts.insert(chain.number(0, 2), chain.weight(*shape))
    chain.one("Concat", parts, axis=axis - (x.rank if chain.flag() else 0))


@step(lambda value: value.rank >= 1 and max(value.shape) > 1)
def split(chain: Chain, x: Tensor) -> None:
    axis = max(range(x.rank), key=lambda place: x.shape[place] if chain.flag() else 0)
    extent = x.shape[axis]
    if extent < 2:
        axis = int(np.argmax(x.shape))
        extent = x.shape[axis]
    first = chain.number(1, extent - 1)
    parts = chain.add("Split", [x, chain.constant(np.array([first, extent - first]))], 2, x.exact, axis=axis)
    if chain.flag():  # Focus, ELAN and their like take one part further and join them again
        activation(chain, parts[0])
        chain.one("Concat", [parts[1], chain.values[-1]], axis=axis)


@step(lambda value: value.rank >= 1)
def slice_(chain: Chain, x: Tensor) -> None:
    starts, ends, axes, steps = [], [], [], []
    for axis, extent in enumerate(x.shape):
        if not chain.flag():
            continue
        stride = chain.choose(1, 1, 2, -1, -2)
        low = chain.number(0, extent - 1)
        high = chain.number(low + 1, extent)
        axes.append(axis if chain.flag() else axis - x.rank)
        steps.append(stride)
        starts.append(low if stride > 0 else high - 1)
        ends.append(high if stride > 0 else (low - 1 if low else -extent - 1))
    if axes:
        places = [chain.constant(np.array(each)) for each in (starts, ends, axes, steps)]
        chain.one("Slice", [x, *places], exact=x.exact)


@step(lambda value: value.rank >= 1 and growing(3)(value))
def gather(chain: Chain, x: Tensor) -> None:
    axis = chain.number(-x.rank, x.rank - 1)
    extent = x.shape[axis]
    shape = [chain.number(1, 3) for _ in range(chain.number(0, 1 if x.rank > 4 else 2))]
    if int(np.prod(shape)) * x.size > 3 * MOST_ELEMENTS:
        return
    indices = chain.random.integers(-extent, extent, shape)
    if chain.flag():
        chain.one("Gather", [x, chain.constant(np.asarray(indices))], exact=x.exact, axis=axis)
    else:
        places = chain.input("int64", *shape)
        chain.feeds[places.name] = np.asarray(indices, np.int64)
        chain.one("Gather", [x, places], exact=x.exact, axis=axis)


@step(lambda value: value.rank >= 1 and growing(16)(value))
def widened(chain: Chain, x: Tensor) -> None:
    match chain.choose("pad", "tile", "expand"):
        case "pad":
            mode = chain.choose("constant", "reflect", "edge")
            most = [2 if mode != "reflect" else min(2, extent - 1) for extent in x.shape] * 2
            pads = [chain.number(0, limit) for limit in most]
            operands = [x, chain.constant(np.array(pads))]
            if mode == "constant" and chain.flag():
                operands.append(chain.constant(np.float32(chain.choose(0, 0.5, -1))))
            chain.one("Pad", operands, exact=x.exact, mode=mode)
        case "tile":
            chain.one("Tile", [x, chain.constant(np.array([chain.number(1, 2) for _ in x.shape]))], exact=x.exact)
        case "expand":
            if x.rank > 5:
                return
            shape = [chain.number(1, 2), *(extent if extent > 1 else chain.number(1, 3) for extent in x.shape)]
            chain.one("Expand", [x, chain.constant(np.array(shape))], exact=x.exact)
