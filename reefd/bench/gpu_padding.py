# SPDX-License-Identifier: Apache-2.0
"""What a GPU's padding plan gives and costs: `python -m reefd.bench.gpu_padding FOLDER [NETWORK ...]`

Plans for each network the largest split within the bound, also where `reefctl profile` would say that it gains nothing,
and writes it into its folder. Then runs those that can spare something as real-time work that keeps the device busy for
a third of the time, beside one best-effort network, under `reef` (with the plan) and `reset` (without). From the two
follows what moving there and back costs. A JSON object a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from reefd import _engine, resource
from reefd.bench import gpu_beside
from reefd.bench.daemon import BenchError
from reefd.profile import gpu

NETWORKS = ("mobilenet_v2", "densenet121", "resnet50")
BUSY = 3  # times as long as a request: from one to the next
POLICIES = ("reef", "reset")
PLAN_S, BESIDE_S = 0.5, 2.0


def planned(folder: Path, device: _engine.GpuDevice, kind: Literal["cuda", "hip"]) -> resource.Profile:
    """The plan, which the folder has from now on."""
    found = resource.read(folder)
    made = gpu.profile(found, device, kind, seconds=PLAN_S, handover_ns=0)
    resource.write_profile(found, made)
    return made


def figures(made: resource.Profile) -> dict[str, Any]:
    """By the compute units set aside: microseconds from launch to retirement; and what was chosen."""
    total = made.machine.compute_units
    times = {total - units: time / 1e3 for units, time in zip(made.units, made.network_ns, strict=True)}
    return {
        "us": {str(aside): round(times[aside], 2) for aside in sorted(times)},
        "units": made.padding.segments[0].units,
        "loss": made.padding.loss,
        "gains_more_than_it_costs": made.padding.segments[0].units * made.network_ns[-1] > total * gpu.HANDOVER_NS,
    }


def main(folder: Path, networks: Sequence[str], kind: Literal["cuda", "hip"] = "cuda") -> None:
    device = _engine.GpuDevice(kind)
    plans = {}
    for network in networks:
        plans[network] = planned(folder / gpu_beside.resource_of(network, 1), device, kind)
        print(json.dumps({"network": network, **figures(plans[network])}), flush=True)
    del device
    for network, plan in plans.items():
        if plan.padding.segments[0].units == 0:
            continue
        for policy in POLICIES:
            case = gpu_beside.one_case(
                folder,
                policy,
                "one",
                BESIDE_S,
                model=gpu_beside.resource_of(network, 1),
                rate=1e9 / (BUSY * plan.network_ns[-1]),
                device=kind,
            )
            print(json.dumps({"network": network, "policy": policy, **case}), flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:] or NETWORKS)
    except (BenchError, _engine.EngineError, _engine.ModelError, resource.ResourceError) as error:
        raise SystemExit(f"gpu_padding: {error}") from None
