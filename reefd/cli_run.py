# SPDX-License-Identifier: Apache-2.0
"""reefctl run: a resource on a device, once or timed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from reefd.cli_numbers import CountOrZero, InFlight, Seconds, SecondsOrZero, Seed, Workers

if TYPE_CHECKING:
    import numpy as np

    from reefd.resource import Resource


def run(
    folder: Annotated[Path, Parameter(help="a resource folder, as `reefctl compile` makes it")],
    /,
    *,
    inputs: Annotated[
        Path | None, Parameter(help="an .npz file with one array for each input, by name; without it, random ones")
    ] = None,
    outputs: Annotated[Path | None, Parameter(help="an .npz file to write: the model's outputs, by name")] = None,
    iterations: Annotated[CountOrZero, Parameter(help="requests to measure; 0: as many as --duration allows")] = 0,
    duration: Annotated[Seconds | None, Parameter(help="seconds to measure [default: 3]")] = None,
    warm_up: Annotated[
        SecondsOrZero | None, Parameter(help="seconds before, which do not count [default: 0.2]")
    ] = None,
    in_flight: Annotated[InFlight, Parameter(help="requests in flight at a time")] = 1,
    workers: Annotated[
        Workers, Parameter(name=["--workers", "--threads"], help="worker threads; 0: one for each CPU")
    ] = 0,
    preemptible: Annotated[bool, Parameter(help="run the kernels of best-effort work", negative="")] = False,
    seed: Annotated[Seed, Parameter(help="of the random inputs")] = 1,
    json: Annotated[bool, Parameter(help="one JSON object instead of a table", negative="")] = False,
) -> int:
    """Run a compiled model through a daemon of its own, and report throughput and where the time goes.

    With --outputs, and nothing that asks for a measurement, it runs once, without a daemon, and writes what it gave.
    """
    from libreef import ReefError
    from reefd import _engine, feeds, resource
    from reefd.bench.daemon import BenchError

    timed = outputs is None or iterations or duration is not None or warm_up is not None or in_flight > 1 or json
    try:
        loaded = resource.read(folder)
        arrays = feeds.read(inputs, loaded) if inputs else feeds.random(loaded, seed)
        if not timed:
            results = run_once(loaded, arrays, workers=workers, preemptible=preemptible)
        else:
            from reefd.run import measure, report

            plan = measure.Plan(
                iterations,
                3.0 if duration is None else duration,
                0.2 if warm_up is None else warm_up,
                in_flight,
                workers,
                preemptible,
            )
            made, results = measure.measure(loaded, arrays, plan)
            if json:
                import msgspec

                print(msgspec.json.encode(made).decode())
            else:
                report.show(made)
        if outputs is not None:
            _write(outputs, results)
    except (
        resource.ResourceError,
        feeds.InputError,
        _engine.ModelError,
        _engine.EngineError,
        BenchError,
        ReefError,
    ) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run_once(
    loaded: Resource, arrays: list[np.ndarray], *, workers: int = 0, preemptible: bool = False
) -> dict[str, np.ndarray]:
    """The outputs by name. `arrays` as reefd.feeds gives them."""
    from reefd import _engine, feeds
    from reefd.resource.load import model_spec

    results = feeds.outputs(loaded)
    engine = _engine.Engine(device="cpu", workers=workers, realtime=False)
    model = engine.load(model_spec(loaded))
    engine.run(model, arrays, list(results.values()), preemptible=preemptible)
    return results


def _write(path: Path, results: dict[str, np.ndarray]) -> None:
    import numpy as np

    try:
        with path.open("wb") as file:
            np.savez(file, **results)  # type: ignore[arg-type]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
