# SPDX-License-Identifier: Apache-2.0
"""`reefctl run`: the figures are those of its requests, the outputs those of the model, the warnings say what to do."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reefd import feeds, resource
from reefd.cli_run import run_once
from reefd.run.report import Distribution, Report, distribution, warnings

Command = Callable[..., subprocess.CompletedProcess[str]]
PARTS = ("latency", "queue", "compute", "input_copy", "output_copy", "transport")


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300))
def test_percentiles_are_those_of_numpy(times: list[int]) -> None:
    found = distribution(np.array(times))
    wanted = {"min": 0, "median": 50, "p90": 90, "p95": 95, "p99": 99, "p99_9": 99.9, "max": 100}
    for name, percentile in wanted.items():
        assert getattr(found, name) == pytest.approx(np.percentile(times, percentile) / 1000, abs=1e-3)
    assert found.mean == pytest.approx(np.mean(times) / 1000, abs=1e-3)
    assert found.stdev == pytest.approx(np.std(times) / 1000, abs=1e-3)


def measured(done: subprocess.CompletedProcess[str]) -> Report:
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=Report)  # every key is there, and of its type


@pytest.mark.parametrize("options", [(), ("--preemptible",), ("--in-flight", 3), ("--threads", 1)])
def test_requests_are_counted_and_their_time_is_told_apart(
    detector: Path, reefctl: Command, options: tuple[object, ...]
) -> None:
    report = measured(reefctl("run", detector, "--iterations", 23, "--warm-up", 0, "--json", *options))
    assert report.model == "person_detector" and report.requests == 23
    assert report.preemptible == ("--preemptible" in options)
    assert report.in_flight == (3 if "--in-flight" in options else 1)
    assert "--threads" not in options or report.workers == 1
    assert report.throughput == pytest.approx(report.requests / report.seconds, rel=1e-3)
    for part in PARTS:
        values: Distribution = getattr(report, part)
        ordered = (values.min, values.median, values.p90, values.p95, values.p99, values.p99_9, values.max)
        assert list(ordered) == sorted(ordered) and values.min <= values.mean <= values.max
    # Each request's latency is the sum of its parts, so the means are too.
    parts = (report.queue, report.compute, report.input_copy, report.output_copy, report.transport)
    assert sum(part.mean for part in parts) == pytest.approx(report.latency.mean, abs=0.01)
    assert report.compute.min > 0
    # Requests that are in flight together cannot take less than the whole measurement.
    assert report.latency.mean * report.requests <= report.seconds * 1e6 * report.in_flight * 1.001
    assert any("copies are 0 on the CPU device" in note for note in report.notes)
    assert any("p99 rests on 1 of 23 requests" in words for words in report.warnings)


def test_a_duration_is_kept(detector: Path, reefctl: Command) -> None:
    report = measured(reefctl("run", detector, "--duration", 0.3, "--warm-up", 0, "--json"))
    assert report.seconds >= 0.3 and report.requests >= 1


def test_outputs_are_the_models(detector: Path, reefctl: Command, tmp_path: Path) -> None:
    loaded = resource.read(detector)
    given = feeds.random(loaded, seed=5)
    names = [loaded.model.storage[index].name for index in loaded.model.inputs]
    np.savez(tmp_path / "in.npz", **dict(zip(names, given, strict=True)))
    expected = run_once(loaded, given)
    common = ("run", detector, "--inputs", tmp_path / "in.npz", "--outputs")
    once = reefctl(*common, tmp_path / "once.npz")
    assert once.returncode == 0 and once.stdout == "", once.stderr
    timed = reefctl(*common, tmp_path / "timed.npz", "--iterations", 5, "--preemptible")
    assert timed.returncode == 0 and "requests in" in timed.stdout, timed.stderr
    seeded = reefctl("run", detector, "--seed", 5, "--outputs", tmp_path / "seeded.npz")
    assert seeded.returncode == 0, seeded.stderr
    for file in ("once.npz", "timed.npz", "seeded.npz"):
        with np.load(tmp_path / file) as archive:
            assert {name: archive[name].tobytes() for name in archive.files} == {
                name: array.tobytes() for name, array in expected.items()
            }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nowhere",), "nowhere"),
        (("DETECTOR", "--inputs", "nowhere.npz"), "nowhere.npz"),
        (("DETECTOR", "--inputs", __file__), "not a whole .npz file"),
        (("DETECTOR", "--outputs", "/nowhere/out.npz"), "/nowhere/out.npz: No such file"),
        (("DETECTOR", "--outputs", "/dev/full"), "/dev/full: No space left on device"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    detector: Path, reefctl: Command, arguments: tuple[str, ...], reason: str
) -> None:
    done = reefctl("run", *(detector if argument == "DETECTOR" else argument for argument in arguments))
    assert done.returncode == 1 and reason in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "run x --iterations -1", "run x --in-flight 0", "run x --workers 5000", "run x --duration nan",
        "run x --warm-up -1", "run x --seed -1", "inspect x --seconds inf", "profile x --bound 2",
        "bench ring --scale nan", "bench beside --rate 0", "bench death --rounds 0", "bench models --threads 0",
        "bench schedule --samples 0", "bench nothing", "nothing", "run", "status --whatever",
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_end_with_2(reefctl: Command, words: str) -> None:
    done = reefctl(*words.split())
    assert done.returncode == 2 and "Error" in done.stderr and "Traceback" not in done.stderr


def steady(mean: float = 1000.0, stdev: float = 10.0) -> Distribution:
    return Distribution(mean, mean, mean, mean, mean, mean, mean, mean, stdev)


GOOD = {
    "requests": 10_000,
    "compute": steady(),
    "workers": 2,
    "cpus": 2,
    "governors": {"performance"},
    "other_load": 0.01,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"requests": 999}, "for 10 beyond p99 measure 1,000"),
        ({"requests": 9_999}, "for 10 measure 10,000"),
        ({"governors": {"powersave", "performance"}}, "cpupower frequency-set -g performance"),
        ({"governors": set()}, None),
        ({"workers": 3}, "use --workers 2 or fewer"),
        ({"compute": steady(stdev=150)}, "varies by 15%"),
        ({"other_load": 0.3}, "other programs used 30%"),
    ],
)
def test_warnings_say_what_to_do(change: dict[str, object], words: str | None) -> None:
    found = warnings(**(GOOD | change))  # type: ignore[arg-type]
    assert found == [] if words is None else len(found) == 1 and words in found[0]
