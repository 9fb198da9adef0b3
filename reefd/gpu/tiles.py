# SPDX-License-Identifier: Apache-2.0
"""Which tiles are worth trying for a convolution, and the one to take untried."""

from reefd.resource.schema import ITEM_SIZES

from .conv import ConvShape, Tile
from .instance import ceil_div
from .target import Target

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
_HELD_LIMIT = 68  # of 128 vector registers


def candidate_tiles(shape: ConvShape, target: Target) -> list[Tile]:
    """Tiles worth measuring on a device of this kind, the most promising by a rough estimate first."""
    chunk = 16 // ITEM_SIZES[shape.dtype]
    tensor_cores = target.tensor_cores and shape.dtype == "float16"
    asynchronous = not target.name.startswith("gfx")
    found: dict[Tile, float] = {}
    wide = shape.whole_chunks
    for bm, bn, down, across, slices in _TENSOR_CORE_FORMS if tensor_cores else _SCALAR_FORMS:
        if not tensor_cores and down * across > target.scalar_sums:
            continue
        for bk in (64, 128, 32) if tensor_cores else (8 * chunk, 4 * chunk, 16 * chunk):
            steps = bk // 16 if tensor_cores else bk // chunk
            k_tiles = ceil_div(shape.depth, bk)
            too_deep = bk > max(8 * chunk, shape.depth)
            if steps % slices or too_deep or (bn > 32 and bn >= 2 * shape.o):
                continue
            tiles = shape.groups * ceil_div(shape.pixels, bm) * ceil_div(shape.o, bn)
            for share in (1, 2, 4, 8):
                blocks = tiles * share
                if share > k_tiles or (share > 1 and blocks > 4 * target.units):
                    continue
                by_cluster = target.clusters and wide and (bm * bn // (8 if tensor_cores else 4)) % share == 0
                if share > 1 and not by_cluster and target.clusters:
                    continue
                for stages in (2, 3, 4, 6) if asynchronous else (2,):
                    if stages > 2 and stages > ceil_div(k_tiles, share) + 1:
                        continue
                    cluster, parts = (share, 1) if by_cluster else (1, share)
                    tile = Tile(bm, bn, bk, down, across, slices, stages, cluster, parts, tensor_cores)
                    if tile.shared(chunk) > target.shared_limit or not 32 <= tile.threads <= 512:
                        continue
                    if not tensor_cores and tile.threads < 64:
                        continue
                    # k is cut to fill the device. Beyond that a cluster only costs, and clusters leave one by one.
                    if cluster > 1 and blocks > target.units * tile.at_once(chunk):
                        continue
                    # Without asynchronous copies a k-tile waits in registers, beside the sums and a step's operands.
                    held = ceil_div((bm + bn) * (bk // chunk), tile.threads) * 4
                    if not asynchronous and held + down * across + 4 * (down + across) > _HELD_LIMIT:
                        continue
                    found[tile] = _estimate(shape, tile, blocks, target.units)
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
    bytes_read = (tile.bm + tile.bn) * ceil_div(shape.depth, tile.cluster * tile.parts) * ITEM_SIZES[shape.dtype]
    resident = max(
        1, min(4, (200 << 10) // max(1, tile.stages * (tile.bm + tile.bn) * tile.bk * ITEM_SIZES[shape.dtype]))
    )
    waves = ceil_div(blocks, units)
    latency = 1500 + ceil_div(ceil_div(shape.depth, tile.bk), tile.cluster * tile.parts) * (700.0 / tile.stages + 60)
    return (
        latency * ceil_div(waves, resident)
        + waves * (work / rate + bytes_read / 40)
        + (600 if tile.cluster > 1 else 3000 if tile.parts > 1 else 0)
    )
