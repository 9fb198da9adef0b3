# SPDX-License-Identifier: Apache-2.0
"""reefctl verify: the proof that a resource can be preempted anywhere and resumed exactly, or what breaks it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from reefd.resource import ModelFile
    from reefd.resource.restorable import Instance, Restart, Span, Touch

_DISTANCES = (1, 2, 4, 8)  # kernels before the first unfinished one


def verify(
    folder: Annotated[Path, Parameter(help="a resource folder, as `reefctl compile` makes it")],
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="everything, as one JSON object", negative="")] = False,
) -> int:
    """Prove that each kernel instance of a resource can be abandoned and begun again.

    Prints for each instance the bytes that it reads and writes, and the verdict: restorable, or a unit, which saves
    what it updates before it begins. Then the proof for the schedule: at every kernel index, what a restart there reads
    was not overwritten by what ran after it. Exit code 1 when the resource is refused, with the instance and the bytes.
    """
    from reefd import resource
    from reefd.resource import restorable

    try:
        model = resource.read(folder).model
    except resource.ResourceError as error:
        print(json.dumps({"refused": error.reason, "file": str(error.path)}) if as_json else error, file=sys.stderr)
        return 1
    schedule = list(restorable.instances(model))
    proof = restorable.restarts(schedule)
    if as_json:
        print(json.dumps(_document(model, schedule, proof), indent=1))
    else:
        for line in _text(model, schedule, proof):
            print(line)
    return 1 if any(restart.lost for restart in proof) else 0


def _text(model: ModelFile, schedule: Sequence[Instance], proof: Sequence[Restart]) -> Iterator[str]:
    for instance, restart in zip(schedule, proof, strict=True):
        reads, writes = (", ".join(_ranges(model, touches)) for touches in (instance.reads, instance.writes))
        yield f"{instance.index:>4} {instance.kernel.name} ({instance.kernel.op}): {instance.verdict}"
        yield f"       reads {reads or 'nothing'}"
        yield f"       writes {writes}"
        if instance.verdict == "unit":
            yield f"       {instance.reason}; saves {_size(instance.saved_bytes)} before it begins"
        for span in restart.lost:
            yield f"       BROKEN: a restart here would read what it overwrote, {_range(model, span)}"
    units = [instance for instance in schedule if instance.verdict == "unit"]
    conditional = {instance.kernel.op for instance in schedule if instance.conditional}
    yield ""
    yield (
        f"{model.name}: {len(schedule)} kernel instances, {len(schedule) - len(units)} restorable, {len(units)} units"
        + (f" (snapshot {_size(_snapshot(schedule))} in each execution context)" if units else "")
    )
    if conditional:
        count = sum(instance.conditional for instance in schedule)
        in_place = sum(instance.conditional for instance in units)
        yield f"{count} instances may be in place by their arguments ({', '.join(sorted(conditional))}); {in_place} are"
    unknown = sorted({instance.kernel.op for instance in schedule if not instance.declared})
    if unknown:
        yield f"not in the operators' table, so what the resource says was taken: {', '.join(unknown)}"
    broken = sum(bool(restart.lost) for restart in proof)
    if broken:
        yield f"NOT PROVED: {broken} of {len(proof)} kernel indices"
        return
    yield (
        f"proved: a restart at the first unfinished kernel is exact at each of {len(proof)} indices; nothing that "
        "it or a later kernel reads was overwritten since"
    )
    for distance, wrong, of in _further_back(proof):
        yield f"  {distance} further back, {wrong} of {of} restarts would read overwritten data"


def _document(model: ModelFile, schedule: Sequence[Instance], proof: Sequence[Restart]) -> dict[str, Any]:
    def touched(touches: Sequence[Touch]) -> list[dict[str, Any]]:
        return [
            {"argument": touch.argument, "storage": model.storage[touch.storage].name} | _bytes(model, touch.span)
            for touch in touches
        ]

    return {
        "model": model.name,
        "proved": not any(restart.lost for restart in proof),
        "units": sum(instance.verdict == "unit" for instance in schedule),
        "snapshot_bytes": _snapshot(schedule),
        "kernels": [
            {
                "index": instance.index,
                "name": instance.kernel.name,
                "op": instance.kernel.op,
                "verdict": instance.verdict,
                "conditional": instance.conditional,
                "declared_by": "operator" if instance.declared else "resource",
                "reason": instance.reason,
                "reads": touched(instance.reads),
                "writes": touched(instance.writes),
                "saved": [_bytes(model, span) for span in instance.saved],
                "restart": {
                    "needs_bytes": restart.needs,
                    "lost": [_bytes(model, span) for span in restart.lost],
                    "until": restart.until,
                },
            }
            for instance, restart in zip(schedule, proof, strict=True)
        ],
        "further_back": [
            {"kernels": distance, "wrong": wrong, "of": of} for distance, wrong, of in _further_back(proof)
        ],
    }


def _snapshot(schedule: Sequence[Instance]) -> int:
    return max((instance.saved_bytes for instance in schedule), default=0)


def _further_back(proof: Sequence[Restart]) -> Iterator[tuple[int, int, int]]:
    """(distance, wrong, of): restarts that many kernels before the first unfinished one, once that one has begun."""
    for distance in _DISTANCES:
        restarts = [(proof[index - distance].until, index) for index in range(distance, len(proof))]
        if restarts:
            yield distance, sum(until is not None and until <= index for until, index in restarts), len(restarts)


def _ranges(model: ModelFile, touches: Sequence[Touch]) -> Iterator[str]:
    for touch in touches:
        yield f"{touch.argument} = {_range(model, touch.span)}"


def _range(model: ModelFile, span: Span) -> str:
    from reefd.resource.restorable import memory_name

    return f"{memory_name(model, span.memory)} [{span.begin}, {span.end})"


def _bytes(model: ModelFile, span: Span) -> dict[str, Any]:
    from reefd.resource.restorable import memory_name

    return {"memory": memory_name(model, span.memory), "begin": span.begin, "end": span.end}


def _size(count: int) -> str:
    from reefd.cli_compile import size

    return size(count)
