# SPDX-License-Identifier: Apache-2.0
"""How many blocks of a kernel a compute unit holds at once, from what its code object says of registers and memory.

AMD gfx906: AMD GCN3 ISA and LLVM's AMDGPU user guide. NVIDIA sm_90: CUDA C++ programming guide, compute capabilities.
"""

from .instance import Kernel, ceil_div
from .notes import Resources


def _gfx906(kernel: Kernel, used: Resources) -> tuple[int, int]:
    """Four SIMDs of 10 waves of 64 threads, each with 256 vector registers a lane in fours and 800 scalar ones in
    sixteens; 64 KiB of LDS in halves of a KiB; 16 blocks of several waves."""
    waves = ceil_div(kernel.threads, 64)
    by_vectors = 256 // (ceil_div(max(1, used.vector_registers), 4) * 4)
    by_scalars = 800 // (ceil_div(max(1, used.scalar_registers), 16) * 16)
    lds = ceil_div(kernel.shared + used.local_bytes, 512) * 512
    blocks = min(4 * min(10, by_vectors, by_scalars) // waves, (64 << 10) // max(1, lds), 16 if waves > 1 else 40)
    return blocks, 40 // waves


def _sm_90(kernel: Kernel, used: Resources) -> tuple[int, int]:
    """Four partitions of 16 warps of 32 threads and 16,384 registers in 256s; 228 KiB of shared memory, of which a
    block takes 1 KiB besides its own; 32 blocks."""
    warps = ceil_div(kernel.threads, 32)
    by_registers = 4 * (16384 // (ceil_div(max(1, used.vector_registers) * 32, 256) * 256))
    shared = ceil_div(kernel.shared + used.local_bytes + 1024, 128) * 128
    return min(by_registers // warps, (228 << 10) // shared, 32, 64 // warps), 64 // warps


def occupancy(target: str, kernel: Kernel, used: Resources) -> tuple[int, float]:
    """Blocks on one compute unit, and the share of its threads' places that they take."""
    blocks, most = (_gfx906 if target.startswith("gfx") else _sm_90)(kernel, used)
    return blocks, round(blocks / most, 4)
