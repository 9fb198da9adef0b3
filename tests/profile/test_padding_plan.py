# SPDX-License-Identifier: Apache-2.0
"""The padding plan gives away as much as the bound allows, and never more; compared with trying every plan."""

import itertools

import numpy as np
import pytest

from reefd.profile.padding import HANDOVER_NS, plan
from reefd.resource.profile import Padding


def cost_and_gain(times: np.ndarray, units: list[int], given: list[int]) -> tuple[float, float]:
    """What it costs the model and what best-effort work gets, by the definition."""
    column = {units[-1] - count: place for place, count in enumerate(units)}
    cost = gain = 0.0
    for kernel, away in enumerate(given):
        time = times[kernel, column[away]]
        cost += max(0.0, time - times[kernel, -1])
        gain += away * time
    for before, after in itertools.pairwise(given):
        cost += HANDOVER_NS if after < before else 0
        gain -= abs(after - before) * HANDOVER_NS
    return cost, gain


def given_by(found: Padding) -> list[int]:
    given: list[int] = []
    for segment in found.segments:
        given += [segment.units] * (segment.last - len(given))
    return given


@pytest.mark.parametrize("seed", range(30))
def test_no_plan_within_the_bound_gives_more(seed: int) -> None:
    random = np.random.default_rng(seed)
    units = [1, 2, 4]
    kernels = int(random.integers(1, 7))
    # From kernels that fill the device to kernels of one block, 10 us to 2 ms.
    whole = 10 ** random.uniform(4, 6.3, kernels)
    parallel = random.uniform(0, 1, kernels) * random.integers(0, 2, kernels)
    times = np.round([[t * (1 - p + p * 4 / count) for count in units] for t, p in zip(whole, parallel, strict=True)])
    bound = float(random.choice([0.0, 0.005, 0.02, 0.1, 0.5]))
    found = plan(times, units, bound)
    given = given_by(found)
    assert len(given) == kernels
    cost, gain = cost_and_gain(times, units, given)
    budget = bound * times[:, -1].sum()
    assert cost <= budget * (1 + 1e-9)
    assert found.loss == pytest.approx(cost / times[:, -1].sum(), abs=1e-5)
    # Costs are rounded up to 1/2000 of the budget for each kernel and hand-over: that much may be missed.
    within = budget * (1 - 2 * kernels / 2000)
    best = max(
        gain
        for choice in itertools.product((0, 2, 3), repeat=kernels)
        for cost, gain in [cost_and_gain(times, units, list(choice))]
        if cost <= within
    )
    assert gain >= best - 1e-6 * max(1.0, abs(best))


def test_a_model_that_needs_everything_gives_nothing() -> None:
    times = np.array([[4e6, 2e6, 1e6]] * 5)
    found = plan(times, [1, 2, 4], 0.02)
    assert [(s.last, s.units) for s in found.segments] == [(5, 0)] and found.loss == 0


def test_kernels_of_one_block_give_all_but_one_unit() -> None:
    found = plan(np.full((3, 3), 1e6), [1, 2, 4], 0.0)
    assert [(s.last, s.units) for s in found.segments] == [(3, 3)] and found.loss == 0


def test_a_run_too_short_to_be_worth_a_hand_over_is_not_split_off() -> None:
    wide, narrow = [4e6, 1e6], [5e3, 5e3]
    found = plan(np.array([wide, narrow, wide]), [1, 4], 0.02)
    assert [(s.last, s.units) for s in found.segments] == [(3, 0)]


def test_units_are_given_in_granules() -> None:
    units = [1, 2, 3, 4, 5, 6, 7, 8]
    found = plan(np.full((2, 8), 1e6), units, 0.02, granule=2)
    assert [(s.last, s.units) for s in found.segments] == [(2, 6)]


def test_a_large_model_on_a_large_machine() -> None:
    random = np.random.default_rng(1)
    units = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    whole, width = 10 ** random.uniform(4, 5.5, 300), random.integers(1, 80, 300)
    times = np.array([[t * np.ceil(w / n) / np.ceil(w / 64) for n in units] for t, w in zip(whole, width, strict=True)])
    found = plan(times, units, 0.02)
    cost, gain = cost_and_gain(times, units, given_by(found))
    assert 0 < cost <= 0.02 * times[:, -1].sum() and gain > 0


def test_no_kernels_no_segments() -> None:
    assert plan(np.zeros((0, 2)), [1, 2], 0.02).segments == []
