# SPDX-License-Identifier: Apache-2.0
"""Sets of bytes, as sorted ranges that neither touch nor overlap, in each of several memories."""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator


class Ranges:
    """Bytes of several memories; a memory is named by anything hashable. Ranges are [begin, end)."""

    __slots__ = ("_ranges",)

    def __init__(self, other: "Ranges | None" = None) -> None:
        self._ranges: dict[Hashable, list[tuple[int, int]]] = (
            {memory: list(ranges) for memory, ranges in other._ranges.items()} if other else {}
        )

    def __iter__(self) -> Iterator[tuple[Hashable, int, int]]:
        for memory, ranges in self._ranges.items():
            for begin, end in ranges:
                yield memory, begin, end

    def add(self, memory: Hashable, begin: int, end: int) -> None:
        if begin >= end:
            return
        ranges = self._ranges.setdefault(memory, [])
        first = bisect_left(ranges, begin, key=_end)
        last = bisect_right(ranges, end, key=_begin)
        if first < last:
            begin, end = min(begin, ranges[first][0]), max(end, ranges[last - 1][1])
        ranges[first:last] = [(begin, end)]

    def remove(self, memory: Hashable, begin: int, end: int) -> None:
        ranges = self._ranges.get(memory, [])
        first = bisect_right(ranges, begin, key=_end)
        last = bisect_left(ranges, end, key=_begin)
        if begin < end and first < last:
            outside = [(ranges[first][0], begin), (end, ranges[last - 1][1])]
            ranges[first:last] = [(low, high) for low, high in outside if low < high]

    def overlap(self, memory: Hashable, begin: int, end: int) -> list[tuple[int, int]]:
        """What of [begin, end) is in the set."""
        ranges = self._ranges.get(memory, [])
        first = bisect_right(ranges, begin, key=_end)
        last = bisect_left(ranges, end, key=_begin)
        return [(max(low, begin), min(high, end)) for low, high in ranges[first:last] if begin < end]

    def covers(self, memory: Hashable, begin: int, end: int) -> bool:
        return begin >= end or self.overlap(memory, begin, end) == [(begin, end)]


def _begin(span: tuple[int, int]) -> int:
    return span[0]


def _end(span: tuple[int, int]) -> int:
    return span[1]
