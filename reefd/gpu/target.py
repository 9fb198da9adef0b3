# SPDX-License-Identifier: Apache-2.0
"""What a device offers to code generation."""

from typing import NamedTuple


class Target(NamedTuple):
    """A kind of device that code objects are made for."""

    name: str  # sm_90a, gfx906, host
    units: int  # compute units to fill
    tensor_cores: bool  # for halves
    clusters: bool  # blocks that read each other's shared memory
    shared_limit: int  # bytes of shared memory of one block
    scalar_sums: int  # accumulators a thread may keep before registers run out


TARGETS = {
    "sm_90a": Target("sm_90a", 132, True, True, 160 << 10, 128),
    "gfx906": Target("gfx906", 60, False, False, 64 << 10, 32),
    "host": Target("host", 8, True, True, 160 << 10, 32),
}
