# SPDX-License-Identifier: Apache-2.0
"""Requests for one model on the way that every request takes: a client, a ring in shared memory, the engine, the
device. The daemon is one of its own, with nothing else to do."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from libreef import Client, Loan
from reefd.bench.daemon import PrivateDaemon
from reefd.bench.report import host
from reefd.profile.load import OtherLoad
from reefd.resource import Resource
from reefd.run import report
from reefd.run.report import Report

_TASK, _MODEL = "run", "model"
NO_COPIES = "copies are 0 on the CPU device: it reads inputs, and writes outputs, where the client has them"


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure. `iterations` 0: as many as `seconds` allow."""

    iterations: int = 0
    seconds: float = 3.0
    warm_up: float = 0.2
    in_flight: int = 1
    workers: int = 0
    preemptible: bool = False


@dataclass(slots=True)
class _Times:
    """Of each request, nanoseconds."""

    latency: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    compute: list[int] = field(default_factory=list)
    transport: list[int] = field(default_factory=list)

    def add(self, begin: int, end: int, loan: Loan) -> None:
        done = loan.completion
        self.latency.append(end - begin)
        self.queue.append(done.start_ns - done.accept_ns)
        self.compute.append(done.end_ns - done.start_ns)
        self.transport.append(end - begin - (done.end_ns - done.accept_ns))


def measure(resource: Resource, inputs: list[np.ndarray], plan: Plan) -> tuple[Report, dict[str, np.ndarray]]:
    """The report, and the outputs of the last request by name. BenchError, ReefError."""
    manifest = (
        f"version: 1\ntask: {_TASK}\nclass: {'be' if plan.preemptible else 'rt'}\n"
        f"model: {_MODEL}\nslots: {plan.in_flight}\n"
    )
    with tempfile.TemporaryDirectory(prefix="reefctl-run-") as folder:
        (Path(folder) / _MODEL).symlink_to(resource.path.resolve())
        daemon = PrivateDaemon(
            {"run.yaml": manifest}, resource_dirs=[Path(folder)], settings={"workers": str(plan.workers)}
        )
        with daemon, Client(_TASK, socket=daemon.socket) as client:
            loans = [client.loan() for _ in range(plan.in_flight)]
            for loan in loans:
                for name, array in zip([tensor.name for tensor in client.models[0].inputs], inputs, strict=True):
                    loan.inputs[name].array[...] = array
            _run(loans, 0, plan.warm_up)
            with OtherLoad(daemon.pid) as other:
                begin = time.monotonic_ns()
                times = _run(loans, plan.iterations, plan.seconds)
                passed = (time.monotonic_ns() - begin) / 1e9
            outputs = {tensor.name: np.array(loans[0].outputs[tensor.name]) for tensor in client.models[0].outputs}
    return _report(resource, plan, times, passed, other.share), outputs


def _run(loans: list[Loan], iterations: int, seconds: float) -> _Times:
    """Keeps a request of each loan in flight: `iterations` of them, or until the time is over; at least one each."""
    times = _Times()
    until = time.monotonic_ns() + int(seconds * 1e9)
    clock = time.monotonic_ns

    def more(begun: int) -> bool:
        return begun < iterations if iterations else begun < len(loans) or clock() < until

    if len(loans) == 1:
        loan = loans[0]
        while more(len(times.latency)):
            begin = clock()
            loan.infer()
            times.add(begin, clock(), loan)
        return times
    pending = []
    for loan in loans[: iterations or None]:
        begin = clock()
        pending.append((begin, loan, loan.submit()))
    begun = len(pending)
    while pending:
        begin, loan, future = pending.pop(0)
        future.result()
        times.add(begin, clock(), loan)
        if more(begun):
            begin = clock()
            pending.append((begin, loan, loan.submit()))
            begun += 1
    return times


def _report(resource: Resource, plan: Plan, times: _Times, seconds: float, other_load: float) -> Report:
    machine = host()
    requests = len(times.latency)
    workers = plan.workers or machine["cpus"]
    latency, queue, compute, transport = (
        report.distribution(np.array(part)) for part in (times.latency, times.queue, times.compute, times.transport)
    )
    nothing = report.distribution(np.zeros(1))
    found = report.warnings(
        requests=requests,
        compute=compute,
        workers=workers,
        cpus=machine["cpus"],
        governors=report.governors(),
        other_load=other_load,
    )
    return Report(
        model=resource.model.name,
        device="cpu",
        workers=workers,
        preemptible=plan.preemptible,
        in_flight=plan.in_flight,
        warm_up_seconds=plan.warm_up,
        requests=requests,
        seconds=round(seconds, 6),
        throughput=round(requests / seconds, 3),
        latency=latency,
        queue=queue,
        compute=compute,
        input_copy=nothing,
        output_copy=nothing,
        transport=transport,
        host=machine,
        notes=[NO_COPIES],
        warnings=found,
    )
