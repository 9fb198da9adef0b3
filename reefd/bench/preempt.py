# SPDX-License-Identifier: Apache-2.0
"""`reefctl bench preempt`: what preemption takes, what it costs, and what it protects, for every policy in one run.

preempt      on a device without a daemon: from the epoch written (or, where none is, from the arrival of real-time
             work) until the last worker has left the best-effort block that it was in. `preempt/<policy>/<us>` has one
             block of that length for each worker, `preempt_cut/<policy>/<us>` a kernel of that length in blocks as
             networks have them. `own/..` is the part of it in which the thread that preempts was still at work.
             In turns with them the control, the machine's part: bare threads in place of the workers, that notice a
             word; `control/<us>` do nothing but look, `control_cut/<us>` read memory meanwhile, as kernels do.
cost         networks with the checks of preemptible kernels and without, in turns.
added, kept  whole daemons with their clients: preempt_added.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reefd import zoo
from reefd._engine import CpuDevice, notice, vacate
from reefd.bench import preempt_added, preempt_kernels
from reefd.bench.beside import check_resources
from reefd.bench.daemon import BenchError
from reefd.bench.report import Case, case
from reefd.bench.samples import read, write

POLICIES = ("reef", "reset", "wait", "streams", "sequential")
PARTS = ("preempt", "cost", "added", "kept")
KERNEL_US = (100, 1_000, 10_000, 100_000)
ENGINE_PRIORITY = 20  # SCHED_FIFO, as the engine thread has it
BATCHES = 4  # of each case, in turns with the others
NEVER = 2**31  # blocks of 100 ms would be shielded; no network has them
NETWORKS = ("person_detector", "face_detector", "face_mesh", "iris", "resnet18", "resnet50")
CONTROL_BYTES = {"whole": 0, "cut": 48 << 20}  # for each thread; more than the caches hold
COST_TURN_S = 0.04
COST_WARM = 2  # runs of a turn that fill the caches


@dataclass(slots=True)
class Result:
    cases: list[Case] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def measure(
    parts: Sequence[str], policies: Sequence[str], scale: float, resource_dir: Path, earlier: Path | None = None
) -> Result:
    """scale: a share of the usual number of rounds. earlier: a file of samples of whole daemons, which this run adds
    to. BenchError: nothing of that name, or a network is missing."""
    for word, given, known in (("part", parts, PARTS), ("policy", policies, POLICIES)):
        if unknown := [name for name in given if name not in known]:
            raise BenchError(f"no {word} {', '.join(unknown)}; there are: {', '.join(known)}")
    resources = check_resources(resource_dir)
    result = Result()
    samples = read(earlier)
    stolen_s, start = _stolen_s(), time.monotonic()
    if "preempt" in parts:
        _preempt(policies, scale, result)
    if "cost" in parts:
        _cost(scale, resources, result)
    if "added" in parts:
        preempt_added.measure_added(policies, max(80, round(2000 * scale)), resources, samples)
    if "kept" in parts:
        preempt_added.measure_kept(policies, max(2.0, 20 * scale), resources, samples)
    # What the hypervisor took from this machine meanwhile, of all its processors' time.
    passed = (time.monotonic() - start) * len(os.sched_getaffinity(0))
    samples.stolen.append(round((_stolen_s() - stolen_s) / passed, 5))
    if earlier is not None:
        write(earlier, samples)
    for found in (preempt_added.report_added(samples), preempt_added.report_kept(samples)):
        result.cases += found.cases
        result.ratios |= found.ratios
    result.facts["stolen_share"] = samples.stolen
    result.facts["others_share"] = samples.others
    return result


def _stolen_s() -> float:
    with suppress(OSError, IndexError):
        return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


# ---------------------------------------------------------------- until the last worker has left


def _rounds(policy: str, kernel_us: float, scale: float) -> int:
    """A thousand, or as many as fit into some seconds of a batch where each takes long."""
    seconds = 1e-6 * kernel_us * (0.6 if policy in ("reef", "reset") else 2.0)
    return max(4, round(scale * min(1000, 30 / seconds) / BATCHES))


def _preempt(policies: Sequence[str], scale: float, result: Result) -> None:
    devices = {
        exclusive: CpuDevice(realtime=True, shield_after=NEVER, exclusive=exclusive) for exclusive in (True, False)
    }
    latencies: dict[str, list[int]] = {}
    own: dict[str, list[int]] = {}
    control: dict[str, list[int]] = {}
    timers: list[int] = []
    redone: dict[str, int] = dict.fromkeys(policies, 0)
    lengths: dict[str, float] = {}
    for shape, word in (("whole", "preempt"), ("cut", "preempt_cut")):
        for kernel_us in KERNEL_US:
            loads = {}
            for exclusive, device in devices.items():
                loads[exclusive] = getattr(preempt_kernels, shape)(device, kernel_us), preempt_kernels.short(device)
            lengths[f"{word}/{kernel_us}"] = round(loads[True][0].kernel_us, 1)
            for batch in range(BATCHES):
                with _engine_class():
                    bare = notice(
                        threads=int(devices[True].info["compute_units"]), rounds=_rounds("reef", kernel_us, scale),
                        within_ns=1000 * kernel_us, memory=CONTROL_BYTES[shape], seed=batch,
                    )  # fmt: skip
                control.setdefault(f"{word.replace('preempt', 'control')}/{kernel_us}", []).extend(bare["latency_ns"])
                for policy in policies:
                    best_effort, real_time = loads[policy != "streams"]
                    found = _vacate(
                        devices[policy != "streams"], best_effort, real_time, policy,
                        _rounds(policy, kernel_us, scale), batch,
                    )  # fmt: skip
                    latencies.setdefault(f"{word}/{policy}/{kernel_us}", []).extend(found["latency_ns"])
                    if policy in ("reef", "reset"):
                        own.setdefault(f"{word.replace('preempt', 'own')}/{kernel_us}", []).extend(found["own_ns"])
                        timers.extend(found["timer_ns"])
                    redone[policy] = max(redone[policy], *found["redone"])
    result.cases += [
        case(name, np.array(times)) for times_of in (latencies, own, control) for name, times in times_of.items()
    ]
    # The same thread's own timer, in the same rounds: what the kernel and the machine do to anybody.
    result.cases.append(case("timer/preempt", np.array(timers)))
    result.facts["kernel_us"] = lengths
    result.facts["blocks_redone_by_a_worker_at_most"] = redone
    result.facts["device"] = devices[True].info["detail"]


def _vacate(
    device: CpuDevice,
    best_effort: preempt_kernels.Loaded,
    real_time: preempt_kernels.Loaded,
    policy: str,
    rounds: int,
    seed: int,
) -> dict[str, list[int]]:
    with _engine_class():
        return vacate(
            device, best_effort.model, best_effort.inputs, best_effort.outputs,
            real_time.model, real_time.inputs, real_time.outputs,
            policy=policy, rounds=rounds, within_ns=round(1000 * best_effort.kernel_us), seed=seed,
        )  # fmt: skip


@contextmanager
def _engine_class() -> Iterator[None]:
    own, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(ENGINE_PRIORITY))
    try:
        yield
    finally:
        os.sched_setscheduler(0, own, parameters)


# ---------------------------------------------------------------- preemptible and plain


def _cost(scale: float, resources: Path, result: Result) -> None:
    from reefd import resource
    from reefd.compiler import compile_to_memory
    from reefd.compiler.load import from_model
    from reefd.compiler.operators import supported
    from reefd.resource import Resource
    from reefd.resource.load import model_spec

    device = CpuDevice()
    for name in NETWORKS:
        if (resources / name).exists():
            loaded = resource.read(resources / name)
        else:
            compiled = compile_to_memory(from_model(zoo.build(name), Path(name), {}, supported), name)
            loaded = Resource(Path(), compiled.model, compiled.weights, "")
        model = device.load(model_spec(loaded))
        storage = loaded.model.storage
        random = np.random.default_rng(1)
        inputs = [random.random(storage[i].shape, np.float32) for i in loaded.model.inputs]
        outputs = [np.zeros(storage[i].shape, storage[i].stype) for i in loaded.model.outputs]
        times: dict[bool, list[int]] = {True: [], False: []}
        pairs = []
        once = min(device.run(model, inputs, outputs, rounds=5)["each_ns"]) / 1e9
        rounds = COST_WARM + max(2, round(COST_TURN_S / once))
        for turn in range(max(6, round(60 * scale))):
            medians = {}
            for preemptible in (False, True) if turn % 2 else (True, False):
                run = device.run(model, inputs, outputs, preemptible=preemptible, rounds=rounds)
                times[preemptible] += run["each_ns"][COST_WARM:]
                medians[preemptible] = float(np.median(run["each_ns"][COST_WARM:]))
            pairs.append(medians[True] / medians[False])
        plain = case(f"plain/{name}", np.array(times[False]))
        checked = case(f"preemptible/{name}", np.array(times[True]))
        result.cases += [plain, checked]
        # Of turns that follow each other at once, so that what the machine does meanwhile strikes both.
        result.ratios[f"preemptible/plain {name}"] = round(float(np.median(pairs)), 4)
