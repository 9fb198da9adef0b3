# SPDX-License-Identifier: Apache-2.0
"""Tiles that were measured to be best on a device of a kind: tiles_<target>.json, one list for each shape.

A shape with another epilogue (activation, residual, pitches) takes the tile of the same product.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from .conv import ConvShape, Tile


def core(shape: ConvShape) -> ConvShape:
    """A shape without its epilogue: shapes of one core share a measurement."""
    return shape._replace(
        residual=0, residual_pitch=0, activation="none", activation_first=False, alpha=0.0, beta=0.0, y_pitch=0,
        x_pitch=0, bias=True, x_dtype="", y_dtype="", prelu=False,
    )  # fmt: skip


class KnownTiles(Mapping[ConvShape, Tile]):
    """Tiles by core."""

    def __init__(self, entries: Iterable[tuple[ConvShape, Tile]]) -> None:
        self._tiles = {core(shape): tile for shape, tile in entries}

    def __getitem__(self, shape: ConvShape) -> Tile:
        return self._tiles[core(shape)]

    def __iter__(self) -> Iterator[ConvShape]:
        return iter(self._tiles)

    def __len__(self) -> int:
        return len(self._tiles)


def parse_tiles(entries: Iterable[Sequence[Any]]) -> list[tuple[ConvShape, Tile]]:
    """From JSON: each the fields of a shape, then its tile as a list. TypeError, ValueError: something else."""
    return [
        (ConvShape._make(tuple(f) if isinstance(f, list) else f for f in shape), Tile(*tile))
        for *shape, tile in entries
    ]


def tile_entries(tiles: Mapping[ConvShape, Tile]) -> list[list[Any]]:
    """What parse_tiles reads."""
    return [[*shape, list(tile)] for shape, tile in tiles.items()]


@cache
def known_tiles(target: str) -> KnownTiles:
    """Of a target; empty where nothing was measured."""
    path = Path(__file__).with_name(f"tiles_{target}.json")
    return KnownTiles(parse_tiles(json.loads(path.read_text())) if path.exists() else [])
