# SPDX-License-Identifier: Apache-2.0
"""attention against NumPy in double precision: shapes, masks, schedules, bad resources."""

from typing import Any

import numpy as np
import pytest

from .harness import INSTRUCTION_SETS, Array, Instance, RefusedError, check_schedules, difference

TOLERANCE = 5e-6


def reference(q: Array, k: Array, v: Array, mask: Array | None, scale: float) -> Array:
    """[batch, place, head, number] in and out."""
    turned = [x.astype(np.float64).transpose(0, 2, 1, 3) for x in (q, k, v)]
    scores = scale * turned[0] @ turned[1].transpose(0, 1, 3, 2)
    if mask is not None:
        scores = scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    y = weights / weights.sum(-1, keepdims=True) @ turned[2]
    return y.transpose(0, 2, 1, 3).astype(np.float32)


def noise(*shape: int, scale: float = 1.0) -> Array:
    return np.random.default_rng(sum(shape)).normal(0, scale, shape).astype(np.float32)


# batch, queries, keys, heads, depth, numbers of a value
SHAPES = {
    "bert": (1, 128, 128, 12, 64, 64),
    "ragged": (2, 37, 53, 3, 19, 23),
    "one query": (1, 1, 77, 4, 32, 32),
    "one key": (2, 9, 1, 2, 8, 8),
    "many keys": (1, 5, 500, 1, 16, 16),
    "wide values": (1, 33, 70, 1, 3, 333),
    "deep": (1, 3, 65, 1, 600, 5),
    "whole tiles": (1, 64, 128, 2, 32, 28),
}


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("mask", ["no", "keys", "heads", "pairs"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, mask: str, isa: str) -> None:
    batch, queries, keys, heads, depth, values = SHAPES[name]
    tensors = [noise(batch, queries, heads, depth), noise(batch, keys, heads, depth, scale=2)]
    tensors.append(noise(batch, keys, heads, values))
    hidden = {
        "no": None,
        "keys": np.where(np.arange(keys) < max(keys - 3, 1), 0, -1e4).reshape(1, 1, 1, keys),
        "heads": noise(1, heads, 1, keys),
        "pairs": noise(batch, 1, queries, keys, scale=3),
    }[mask]
    if hidden is not None:
        tensors.append(hidden.astype(np.float32))
    attributes = {"scale": depth**-0.5, "mask": int(hidden is not None)}
    y = np.empty((batch, queries, heads, values), np.float32)
    result = check_schedules(Instance("attention", [*tensors, y], attributes, isa=isa))
    wanted = reference(*tensors[:3], tensors[3] if hidden is not None else None, depth**-0.5)
    assert difference(result, wanted) < TOLERANCE


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_rows_that_grow_and_rows_that_hide(isa: str) -> None:
    """Scores far apart, the largest in the last tile, and minus infinity as a mask of whole tiles."""
    keys = 200
    q, k, v = noise(1, 20, 2, 8, scale=4), noise(1, keys, 2, 8, scale=4), noise(1, keys, 2, 8)
    k *= np.linspace(0.1, 3, keys, dtype=np.float32)[None, :, None, None]
    mask = np.zeros((1, 1, 20, keys), np.float32)
    mask[:, :, ::2, :130] = -np.inf
    mask[:, :, 1::2, 70:] = -np.inf
    result = Instance("attention", [q, k, v, mask, np.empty_like(q)], {"mask": 1, "scale": 1.0}, isa=isa).run()
    assert difference(result, reference(q, k, v, mask, 1.0)) < 2e-5


@pytest.mark.parametrize(
    ("shapes", "attributes", "words"),
    [
        (((1, 4, 2, 8), (1, 5, 2, 9), (1, 5, 2, 8), (1, 4, 2, 8)), {}, "does not fit the queries"),
        (((1, 4, 2, 8), (1, 5, 2, 8), (1, 6, 2, 8), (1, 4, 2, 8)), {}, "does not fit the keys"),
        (((1, 4, 2, 8), (1, 5, 2, 8), (1, 5, 2, 8), (1, 4, 2, 9)), {}, "8 values a head"),
        (((4, 2, 8), (5, 2, 8), (5, 2, 8), (4, 2, 8)), {}, "four dimensions"),
        (((1, 4, 2, 8), (1, 5, 2, 8), (1, 5, 2, 8), (1, 4, 2, 8)), {"mask": 1}, "has 4 arguments, expected 5"),
        (
            ((1, 4, 2, 8), (1, 5, 2, 8), (1, 5, 2, 8), (1, 1, 4, 4), (1, 4, 2, 8)), {"mask": 1},
            r"should be \[1 or 1, 2 or 1, 4 or 1, 5\]",
        ),
        (((1, 4, 1, 9000), (1, 5, 1, 9000), (1, 5, 1, 8), (1, 4, 1, 8)), {}, "at most 4096"),
    ],
)  # fmt: skip
def test_refuses(shapes: Any, attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        Instance("attention", [np.ones(shape, np.float32) for shape in shapes], attributes)
