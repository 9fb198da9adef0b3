# SPDX-License-Identifier: Apache-2.0
"""The padding plan: how many compute units best-effort work may use beside each run of a real-time model's kernels.

Giving n of N units away for a kernel costs the model t(N - n) - t(N) and gives best-effort work n * t(N - n) of a
unit's time. Taking units back costs the model a hand-over, since best-effort blocks leave at their next check point;
any change costs best-effort work what the blocks that are abandoned, or not yet begun, would have done in that time.
The plan is the schedule of the most work whose costs stay within the bound. It is a knapsack over a path, solved by
dynamic programming over (kernel, units, budget spent); costs are rounded up to steps of the budget: the bound holds.
"""

from itertools import pairwise

import numpy as np

from reefd.resource.profile import Padding, Segment

HANDOVER_NS = 20_000  # the longest that a block should take to its next check point
_STEPS = 2_000  # of the budget
_MAX_CELLS = 100_000_000  # of the table by which the plan is read back


def plan(times_ns: np.ndarray, units: list[int], bound: float, granule: int = 1) -> Padding:
    """`times_ns` [kernels, len(units)]: of each kernel with so many compute units, ascending; the last is the whole
    device. `bound`: the share of the model's time that may be lost. Units given away are multiples of `granule`."""
    kernels = len(times_ns)
    whole = times_ns[:, -1].astype(np.float64)
    total = whole.sum()
    if kernels == 0 or total == 0:
        return Padding(bound, 0.0, [Segment(kernels, 0)] if kernels else [])
    options = [(units[-1] - count, column) for column, count in enumerate(units) if (units[-1] - count) % granule == 0][
        ::-1
    ]
    given = [away for away, _ in options]  # ascending, the first is 0
    times = times_ns[:, [column for _, column in options]].astype(np.float64)
    costs = np.maximum(times - whole[:, None], 0.0)
    gains = times * np.array(given)
    chosen = _best(costs, gains, given, bound * total)
    return Padding(bound, round(_loss(costs, chosen, given) / float(total), 6), _segments(chosen, given))


def _best(costs: np.ndarray, gains: np.ndarray, given: list[int], budget: float) -> list[int]:
    """The index of the option for each kernel."""
    kernels, options = costs.shape
    steps = int(min(_STEPS, max(1, _MAX_CELLS // (kernels * options))))
    unit = budget / steps if budget > 0 else np.inf
    # value[option, spent]: the most work after the kernels so far, the last one with this option, at most this spent.
    value = np.zeros((options, steps + 1))
    came_from = np.zeros((kernels, options, steps + 1), np.uint8)
    handover = int(np.ceil(HANDOVER_NS / unit)) if np.isfinite(unit) else steps + 1
    for kernel in range(kernels):
        after = np.full_like(value, -np.inf)
        for option in range(options):
            before = value[option]
            source = np.full(steps + 1, option, np.uint8)
            for other in range(options) if kernel else ():
                if other == option:
                    continue
                candidate = value[other] - abs(given[other] - given[option]) * HANDOVER_NS
                if other > option:
                    candidate = _later(candidate, handover)
                better = candidate > before
                before = np.where(better, candidate, before)
                source[better] = other
            cost = costs[kernel, option]
            spent = int(np.ceil(cost / unit)) if np.isfinite(unit) else (steps + 1 if cost > 0 else 0)
            after[option] = _later(before, spent) + gains[kernel, option]
            came_from[kernel, option] = _later(source, spent, fill=option)
        value = after
    option, left = int(np.argmax(value[:, steps])), steps
    chosen: list[int] = []
    for kernel in range(kernels - 1, -1, -1):
        chosen.append(option)
        source_option = int(came_from[kernel, option, left])
        cost = costs[kernel, option]
        left -= int(np.ceil(cost / unit)) if np.isfinite(unit) else 0
        if source_option > option and kernel:
            left -= handover
        option = source_option
    return chosen[::-1]


def _later(values: np.ndarray, spent: int, fill: float = -np.inf) -> np.ndarray:
    """What is reached with so much more spent."""
    if spent == 0:
        return values
    moved = np.full_like(values, fill)
    if spent < len(values):
        moved[spent:] = values[:-spent]
    return moved


def _loss(costs: np.ndarray, chosen: list[int], given: list[int]) -> float:
    """What the plan costs the model, nanoseconds."""
    taken_back = sum(given[after] < given[before] for before, after in pairwise(chosen))
    return sum(float(costs[kernel, option]) for kernel, option in enumerate(chosen)) + taken_back * HANDOVER_NS


def _segments(chosen: list[int], given: list[int]) -> list[Segment]:
    segments: list[Segment] = []
    for kernel, option in enumerate(chosen):
        if segments and segments[-1].units == given[option]:
            segments.pop()
        segments.append(Segment(kernel + 1, given[option]))
    return segments
