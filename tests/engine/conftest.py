# SPDX-License-Identifier: Apache-2.0
"""Simulated time for the tests of this folder."""

from __future__ import annotations

import pytest

from .simulation import Simulation


@pytest.fixture
def simulate():
    """simulate(policy, units=..., device=...): simulations that end with the test."""
    made = []

    def make(policy="reef", *, units=4, device="simulated"):
        made.append(Simulation(units, policy, device))
        return made[-1]

    yield make
    for simulation in made:
        simulation.engine.stop(grace_ns=0, keep_sessions=False)


@pytest.fixture
def sim(simulate):
    return simulate()
