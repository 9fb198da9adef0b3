# SPDX-License-Identifier: Apache-2.0
"""The verbs of `reefctl bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from cyclopts import App, Parameter

from reefd.cli_numbers import Count, Rate, Scale, Seconds, Threads

if TYPE_CHECKING:
    from reefd.bench.report import Case

app = App(name="bench", help="Measure what reefd costs and what it protects, beside its peers, in one run.")

Json = Annotated[bool, Parameter(name="--json", negative=(), help="One JSON object instead of a table.")]


T = TypeVar("T")


def _measured(verb: str, measure: Callable[[], T]) -> T | None:
    """What was measured. None, and the reason on stderr, where it cannot be."""
    from reefd.bench.daemon import BenchError

    try:
        return measure()
    except BenchError as error:
        print(f"reefctl bench {verb}: {error}", file=sys.stderr)
        return None


def _reported(verb: str, measure: Callable[[], tuple[list[Case], dict[str, float], list[str]]], as_json: bool) -> int:
    """Prints cases, ratios and notes; the exit code."""
    from reefd.bench.report import print_report

    if (result := _measured(verb, measure)) is None:
        return 1
    print_report(*result, as_json=as_json)
    return 0


@app.command
def ring(*, json: Json = False, scale: Scale = 1.0) -> int:
    """Round trip of an echo request, spinning and waiting, beside raw shared memory, a unix socket and gRPC.

    Parameters
    ----------
    scale
        Share of the usual number of rounds, for a quick look.
    """
    from reefd.bench import ring as bench

    return _reported("ring", lambda: bench.measure(scale), json)


@app.command
def beside(
    *,
    json: Json = False,
    requests: Count = 2000,
    rate: Rate = 25.0,
    resource_dir: Path = Path("build/resource"),
) -> int:
    """Real-time requests alone and beside a best-effort load that saturates the device, in alternating seconds.

    Parameters
    ----------
    requests
        Real-time requests in all; half of them alone.
    rate
        Real-time requests a second.
    resource_dir
        Where the compiled networks are (`make resources`).
    """
    from reefd.bench import beside as bench

    return _reported("beside", lambda: bench.measure(requests, rate, resource_dir), json)


@app.command
def preempt(
    *,
    device: Literal["cpu"] = "cpu",
    json: Json = False,
    scale: Scale = 1.0,
    parts: str = "",
    policies: str = "",
    resource_dir: Path = Path("build/resource"),
    samples: Path | None = None,
) -> int:
    """How long best-effort work takes to leave the device, what preemption costs, and what it protects.

    Parameters
    ----------
    device
        What to measure.
    scale
        Share of the usual number of rounds, for a quick look: 1 takes a quarter of an hour, 0.05 a minute.
    parts
        Of preempt, cost, added, kept; separated by commas, all of them if left out.
    policies
        Of reef, reset, wait, streams, sequential; separated by commas, all of them if left out.
    resource_dir
        Where the compiled networks are (`make resources`).
    samples
        A file that keeps what added and kept measured. Runs with the same file add up, and each reports them all: a
        long run can be made in parts.
    """
    from reefd.bench import preempt as bench
    from reefd.bench.report import print_report

    if (
        result := _measured(
            "preempt",
            lambda: bench.measure(
                parts.split(",") if parts else bench.PARTS,
                policies.split(",") if policies else bench.POLICIES,
                scale,
                resource_dir,
                samples,
            ),
        )
    ) is None:
        return 1
    notes = [f"{key}: {value}" for key, value in result.facts.items()]
    print_report(result.cases, result.ratios, notes, as_json=json, facts={"device": device, **result.facts})
    return 0


@app.command
def interference(
    *,
    json: Json = False,
    requests: Count = 1000,
    rate: Rate = 25.0,
    resource_dir: Path = Path("build/resource"),
) -> int:
    """Real-time requests alone and beside eight hostile best-effort clients, in alternating seconds.

    Parameters
    ----------
    requests
        Real-time requests in all; half of them alone.
    rate
        Real-time requests a second.
    resource_dir
        Where the compiled networks are (`make resources`).
    """
    from reefd.bench import interference as bench

    return _reported("interference", lambda: bench.measure(requests, rate, resource_dir), json)


@app.command
def death(*, json: Json = False, rounds: Count = 30, resource_dir: Path = Path("build/resource")) -> int:
    """How soon a client that waits knows that its daemon was killed, and how soon it is served again.

    Parameters
    ----------
    rounds
        Daemons to kill, for each of three figures.
    resource_dir
        Where the compiled networks are (`make resources`).
    """
    from reefd.bench import death as bench

    return _reported("death", lambda: bench.measure(rounds, resource_dir), json)


@app.command
def models(
    *,
    device: Literal["cpu"] = "cpu",
    against: Literal["onnxruntime"] = "onnxruntime",
    threads: Threads = 1,
    models: str = "",
    realtime: Annotated[bool, Parameter(negative=())] = False,
    seconds: Seconds = 3.0,
    folder: Path = Path("build/bench/models"),
    json: Json = False,
) -> int:
    """Whole networks, in turns with ONNX Runtime on as many threads; ratios below 1 are in reefd's favour.

    Parameters
    ----------
    device
        Where reefd runs them.
    against
        The peer.
    threads
        Workers of the device, and threads of the peer.
    models
        Which, separated by commas; all of them if left out.
    realtime
        Both sides above every ordinary thread of the machine (SCHED_FIFO), where others use it meanwhile.
    seconds
        For each network and side, about.
    folder
        Where the networks are written and compiled.
    """
    from reefd.bench import models as bench
    from reefd.bench.report import print_report

    if (
        result := _measured(
            "models",
            lambda: bench.measure(models.split(",") if models else bench.MODELS, threads, seconds, folder, realtime),
        )
    ) is None:
        return 1
    facts = result.facts
    notes = [f"geometric mean: {facts['geometric_mean']:.2f}, worst {facts['worst']:.2f}, {device} against {against}"]
    print_report(result.cases, result.ratios, notes, as_json=json, facts=facts)
    return 0


@app.command
def schedule(*, json: Json = False, samples: Count = 400) -> int:
    """What a turn of the engine costs with up to 1,000 sessions and 1,000 active requests, in simulated time.

    Parameters
    ----------
    samples
        Spans of simulated time for each point of the curves.
    """
    from reefd.bench import schedule as bench

    return _reported("schedule", lambda: bench.measure(samples), json)


@app.command
def gpu(
    *,
    folder: Path = Path("build/bench/gpu"),
    networks: str = "",
    torch: str = "python3",
    rounds: Count = 500,
    seconds: Seconds = 3.0,
    json: Json = False,
) -> int:
    """Networks on an NVIDIA GPU beside PyTorch; preemption, exactness, and real-time work beside best-effort loads.

    Parameters
    ----------
    folder
        Resources NETWORK-float16 and NETWORK-float32, with GPU code (`reefctl compile --target cuda:sm_90`).
    networks
        Which, separated by commas; all of them if left out.
    torch
        An interpreter that has PyTorch; "" leaves the peer out.
    rounds
        For each network.
    seconds
        Of real-time requests in each case beside a load.
    """
    from json import dumps

    from reefd.bench import gpu as bench

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if (
        result := _measured(
            "gpu",
            lambda: bench.measure(
                folder, networks.split(",") if networks else bench.NETWORKS, torch, rounds, seconds, say
            ),
        )
    ) is None:
        return 1
    print(dumps(result, indent=None if json else 1))
    return 0
