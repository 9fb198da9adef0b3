# SPDX-License-Identifier: Apache-2.0
"""The activation arena of a schedule, and the least that any plan for it would need."""

from reefd.resource.schema import ALIGNMENT, ModelFile


def live_bytes(model: ModelFile) -> list[int]:
    """Bytes of the arena that hold a value while each kernel runs: from the kernel that first writes them to the last
    one that uses them, this one included."""
    lives: dict[int, tuple[int, int]] = {}
    for step, kernel in enumerate(model.kernels):
        for argument in kernel.args:
            owner = model.storage[argument].base if model.storage[argument].base >= 0 else argument
            if model.storage[owner].kind == "arena":
                lives[owner] = (lives.get(owner, (step, step))[0], step)
    found = []
    for step in range(len(model.kernels)):
        owners = (model.storage[owner] for owner, (first, last) in lives.items() if first <= step <= last)
        found.append(_covered(sorted((owner.offset, owner.offset + owner.bytes) for owner in owners)))
    return found


def _covered(spans: list[tuple[int, int]]) -> int:
    """Bytes in the union of sorted ranges, rounded up to the alignment: a tensor that is seen under two names counts
    once."""
    total = end = 0
    for begin, stop in spans:
        stop = -(-stop // ALIGNMENT) * ALIGNMENT
        total += max(0, stop - max(begin, end))
        end = max(end, stop)
    return total
