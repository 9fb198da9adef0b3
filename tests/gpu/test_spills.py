# SPDX-License-Identifier: Apache-2.0
"""Preemptible kernels keep everything in registers: what the compiler notes of the large scalar tiles."""

import pytest

from reefd.gpu.compile import compile_source
from reefd.gpu.conv import ConvShape, Tile, conv_kernels
from reefd.gpu.known_tiles import known_tiles
from reefd.gpu.notes import nvidia_resources
from reefd.gpu.source import kernel_source

pytest.importorskip("nvidia", reason="needs: pip install 'reefd[cuda]'")

TARGET = "sm_90a"
# Of a layer with bias and activation, as VGG-16 has it; the tile is the one measured for such a layer.
LARGE = [
    (shape, tile)
    for shape, tile in known_tiles(TARGET).items()
    if shape.dtype == "float32" and tile.down * tile.across >= 64 and shape.h >= 28
]


@pytest.mark.parametrize(("shape", "tile"), LARGE)
def test_no_large_tile_spills(shape: ConvShape, tile: Tile) -> None:
    (kernel,) = conv_kernels(shape._replace(bias=True, activation="relu"), tile)
    noted = nvidia_resources(compile_source(kernel_source([kernel], "cuda", ["preemptible"]), TARGET))
    assert noted[f"{kernel.name}_p"].scratch_bytes == 0
