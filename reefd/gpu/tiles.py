# SPDX-License-Identifier: Apache-2.0
"""Which tiles are worth trying for a convolution, and the one to take untried."""

from .conv import _BYTES, ConvShape, Tile
from .instance import ceil_div

# bm, bn, warps down, warps across, slices
_TENSOR_CORE_FORMS = (
    (16, 32, 1, 1, 4),
    (16, 32, 1, 2, 2),
    (16, 64, 1, 4, 1),
    (16, 64, 1, 2, 2),
    (16, 64, 1, 2, 4),
    (16, 128, 1, 4, 2),
    (32, 32, 2, 2, 1),
    (32, 32, 2, 1, 2),
    (32, 32, 1, 1, 4),
    (32, 32, 2, 2, 2),
    (32, 64, 2, 2, 1),
    (32, 64, 1, 2, 2),
    (32, 64, 2, 2, 2),
    (64, 32, 2, 2, 1),
    (64, 32, 2, 1, 2),
    (64, 32, 2, 2, 2),
    (64, 64, 2, 2, 1),
    (64, 64, 2, 2, 2),
    (64, 64, 4, 2, 1),
    (32, 128, 1, 4, 1),
    (32, 128, 2, 4, 1),
    (128, 32, 4, 1, 1),
    (128, 32, 4, 2, 1),
    (64, 128, 2, 2, 1),
    (64, 128, 2, 4, 1),
    (128, 64, 2, 2, 1),
    (128, 64, 4, 2, 1),
    (128, 128, 2, 4, 1),
    (128, 128, 4, 2, 1),
    (256, 64, 4, 2, 1),
    (128, 256, 2, 4, 1),
)
# bm, bn, rows and columns of a thread, slices
_SCALAR_FORMS = (
    (16, 64, 4, 4, 2),
    (16, 64, 2, 4, 2),
    (32, 32, 4, 4, 2),
    (32, 32, 4, 4, 4),
    (32, 32, 4, 2, 1),
    (32, 64, 4, 4, 1),
    (32, 64, 4, 4, 2),
    (32, 64, 8, 4, 2),
    (64, 32, 4, 4, 1),
    (64, 32, 4, 4, 2),
    (64, 64, 4, 4, 1),
    (64, 64, 8, 4, 1),
    (64, 64, 8, 4, 2),
    (64, 64, 8, 8, 2),
    (64, 64, 8, 8, 4),
    (128, 64, 8, 8, 1),
    (128, 64, 8, 8, 2),
    (64, 128, 8, 8, 1),
    (64, 128, 8, 8, 2),
    (128, 128, 8, 8, 1),
    (128, 32, 8, 4, 1),
    (256, 64, 8, 8, 1),
    (128, 128, 16, 8, 1),
)


def candidate_tiles(
    shape: ConvShape, *, tensor_cores: bool, units: int, clusters: bool, shared_limit: int = 160 << 10
) -> list[Tile]:
    """Tiles worth measuring on a device with this many compute units, those that fill it about once first."""
    chunk = 16 // _BYTES[shape.dtype]
    found: dict[Tile, float] = {}
    wide = not shape.y_nchw and shape.o % (16 // _BYTES[shape.y_dtype or shape.dtype]) == 0
    for bm, bn, down, across, slices in _TENSOR_CORE_FORMS if tensor_cores else _SCALAR_FORMS:
        for bk in (64, 128, 32) if tensor_cores else (32, 16, 64):
            steps = bk // 16 if tensor_cores else bk // chunk
            k_tiles = ceil_div(shape.depth, bk)
            if steps % slices or bk > max(32, shape.depth) or (bn > 32 and bn >= 2 * shape.o):
                continue
            tiles = shape.groups * ceil_div(shape.pixels, bm) * ceil_div(shape.o, bn)
            for share in (1, 2, 4, 8) if clusters and wide else (1,):
                blocks = tiles * share
                if (
                    share > k_tiles
                    or (share > 1 and blocks > 4 * units)
                    or (bm * bn // (8 if tensor_cores else 4)) % share
                ):
                    continue
                for stages in (2, 3, 4, 6):
                    each = ceil_div(k_tiles, share)
                    if stages > 2 and stages > each + 1:
                        continue
                    tile = Tile(bm, bn, bk, down, across, slices, stages, share, 1, tensor_cores)
                    if (
                        stages * (bm + bn) * (bk // chunk) * 16 > shared_limit
                        or tile.threads > 512
                        or (tile.threads < 64 and not tensor_cores)
                    ):
                        continue
                    found[tile] = _estimate(shape, tile, blocks, units)
    return sorted(found, key=lambda t: found[t])


def spread_out(tiles: list[Tile], each: int) -> list[Tile]:
    """The first `each` tiles of every form: a first look that leaves no form out."""
    taken: dict[tuple[int, ...], int] = {}
    chosen = []
    for tile in tiles:
        form = (tile.bm, tile.bn, tile.down, tile.across, tile.slices)
        taken[form] = taken.get(form, 0) + 1
        if taken[form] <= each:
            chosen.append(tile)
    return chosen


def neighbours(tile: Tile, tiles: list[Tile]) -> list[Tile]:
    """Tiles of the same form: other depth, stages and cluster."""
    return [t for t in tiles if t[:2] == tile[:2] and t[3:6] == tile[3:6] and t != tile]


def _estimate(shape: ConvShape, tile: Tile, blocks: int, units: int) -> float:
    """A rough time, in arbitrary units, that only orders the candidates."""
    rate = (
        (1024.0 if tile.tensor_cores else 64.0)
        * min(1.0, tile.threads / 128)
        * (1.0 if tile.bm * tile.bn >= 4096 else 0.6)
    )
    work = tile.bm * tile.bn * ceil_div(shape.depth, tile.cluster * tile.parts)
    bytes_read = (tile.bm + tile.bn) * ceil_div(shape.depth, tile.cluster) * _BYTES[shape.dtype]
    resident = max(1, min(4, (200 << 10) // max(1, tile.stages * (tile.bm + tile.bn) * tile.bk * _BYTES[shape.dtype])))
    waves = ceil_div(blocks, units)
    latency = 1500 + ceil_div(ceil_div(shape.depth, tile.bk), tile.cluster) * (700.0 / tile.stages + 60)
    return (
        latency * ceil_div(waves, resident) + waves * (work / rate + bytes_read / 40) + (600 if tile.cluster > 1 else 0)
    )
