# SPDX-License-Identifier: Apache-2.0
"""The padding plan of a resource on a GPU: one split for the whole model, by measuring it on what each leaves it.

A real-time model is one graph there, whose kernels overlap: a plan by segments would cut it, and kernels have no times
of their own. So the model runs as real-time work, from launch to retirement, on the whole device and beside each split
that the device offers, in short turns. Its loss is the median over the turns of the ratio of two times that are
milliseconds apart: both met the same clocks.

What best-effort work gains is the split for as long as the model runs. What it pays is moving there and back: its
windows are taken back twice for each request, in place of once. A split that gains less than it costs is not planned.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from reefd import feeds
from reefd._engine import GpuDevice, LocalRequest
from reefd.gpu import stored
from reefd.profile import machine
from reefd.resource import Resource
from reefd.resource.load import model_spec
from reefd.resource.profile import VERSION, Padding, Profile, Segment

REAL_TIME = 0  # the queue
# Of the whole device, for each request. Measured on an H200: beside MobileNet v2 (0.15 ms) on 16 of 132 units, at 2,240
# requests a second, ResNet-152 had 895 answers a second, and 1,021 where it waited: 28 us of the device less for each
# request, though 20 us were to be gained.
HANDOVER_NS = 50_000
WARM_UP, TURN = 20, 20  # requests: before everything, and of one split in one turn
_MIN_TURNS, _MAX_TURNS = 5, 500

Progress = Callable[[str, float], None]  # what is measured, and how much of all was


def profile(
    resource: Resource,
    device: GpuDevice,
    kind: str,
    *,
    bound: float = 0.02,
    seconds: float = 1.0,
    seed: int = 1,
    handover_ns: int = HANDOVER_NS,
    progress: Progress = lambda what, share: None,
) -> Profile:
    """Measures for about `seconds` beside each split of the device. `bound`: the share of its time that the model may
    lose to padding; `handover_ns`: what best-effort work loses by it, of the whole device. ResourceError: there is no
    code for this device; ModelError, EngineError: it cannot be loaded."""
    info = device.info
    spec = model_spec(resource)
    spec.set_program(stored.load(resource, info["target"]))
    model = device.load(spec)
    request = LocalRequest(device, model, feeds.random(resource, seed), list(feeds.outputs(resource).values()))
    granule = info["split_granule"]
    splits = [0, *(range(granule, info["split_most"] + 1, granule) if granule else ())]

    def times(split: int, requests: int) -> list[int]:
        return device.repeat(REAL_TIME, request, requests, split=split)[1]

    begin = time.monotonic()
    for split in splits:
        times(split, WARM_UP)
    each = max((time.monotonic() - begin) / len(splits) / WARM_UP, 1e-6)
    turns = int(min(_MAX_TURNS, max(_MIN_TURNS, seconds / each / TURN)))
    measured: dict[int, list[float]] = {split: [] for split in splits}
    for turn in range(turns):
        progress(f"beside each of {len(splits) - 1} splits", turn / turns)
        for split in splits:
            times(split, 1)  # the first one after a change waits for the streams of the last
            measured[split].append(statistics.median(times(split, TURN)))
    padding = plan(measured, bound, len(model.kernels), info["compute_units"] * handover_ns)
    order = splits[::-1]
    return Profile(
        VERSION,
        kind,
        resource.digest,
        machine.here(info),
        [info["compute_units"] - split for split in order],
        [],
        padding,
        network_ns=[round(statistics.median(measured[split])) for split in order],
        code=resource.code_sum(info["target"]),
    )


def plan(measured: dict[int, list[float]], bound: float, launches: int, cost: float = 0.0) -> Padding:
    """The largest split whose loss is within the bound; it need not grow with the split, since grids come in rounds of
    blocks. `measured`: by the units set aside, 0 among them, the model's time in each turn. `cost`: units by time that
    best-effort work loses; a split that gives it less than that is none."""
    given, loss = 0, 0.0
    for split in sorted(measured):
        ratios = [beside / alone for beside, alone in zip(measured[split], measured[0], strict=True)]
        lost = max(0.0, statistics.median(ratios) - 1.0)
        if lost <= bound and split * statistics.median(measured[split]) > cost:
            given, loss = split, lost
    return Padding(bound, round(loss, 6), [Segment(launches, given)])
