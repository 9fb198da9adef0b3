# SPDX-License-Identifier: Apache-2.0
"""Which kernel instances may be begun again after they were abandoned, and why.

An instance is *restorable* if in the whole of it no block (itself included) writes what any block reads, and nothing is
written twice: then any block of it may run again, in any order, and the result is the same. What an instance reads and
writes is declared in the operators' table (kernels/cpu/operators.inc); of an operator that is not in it, by the
resource, and an argument that nobody declares counts as read and written. Operators of the table use no atomics on what
they write, and their blocks do not wait for each other. Overlap is judged on bytes: storages may be views, and what the
planner put into the arena one after the other may share bytes.

What is not restorable is a *unit*: the device saves the bytes that it both reads and writes before its first block, and
puts them back before it begins the unit again. That is right as long as its blocks are independent. Where an operator
of the table would write what other blocks of it read, there is no right answer at all, and the resource is refused.

Many operators are restorable or not by their arguments alone (`binary` with its result in a place of its own, or where
its first operand lies): those instances are marked conditional.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reefd._engine import operator_arguments
from reefd.resource.ranges import Ranges
from reefd.resource.schema import Access, Kernel, ModelFile

MAX_UNKNOWN_ARGS = 16  # of an operator that nobody declares: each is compared with each

Memory = str | int  # "arena", or the index of the input, output or weight that owns the bytes


class Fault(Exception):
    """What is wrong, in words that name the storage or the kernel."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [begin, end) of one memory."""

    memory: Memory
    begin: int
    end: int

    def overlaps(self, other: "Span") -> bool:
        return self.memory == other.memory and self.begin < other.end and other.begin < self.end


@dataclass(frozen=True, slots=True)
class Touch:
    """One argument of an instance: what the operator calls it, the storage, and the bytes that may be touched."""

    argument: str
    storage: int
    span: Span
    access: Access
    in_place: bool  # read: element i only by the block that writes element i of the result, before it does


@dataclass(frozen=True, slots=True)
class Instance:
    index: int
    kernel: Kernel
    touches: Sequence[Touch]
    verdict: Literal["restorable", "unit"]
    reason: str  # of a unit
    saved: Sequence[Span]  # what a unit both reads and writes
    declared: bool  # the operators' table knows it; else the resource's word was taken
    conditional: bool  # instances of this operator are restorable or not by their arguments

    @property
    def reads(self) -> list[Touch]:
        return [touch for touch in self.touches if touch.access != "write"]

    @property
    def writes(self) -> list[Touch]:
        return [touch for touch in self.touches if touch.access != "read"]

    @property
    def saved_bytes(self) -> int:
        return sum(span.end - span.begin for span in self.saved)


def spans(file: ModelFile) -> list[Span]:
    """Where each storage lies. The file's storages must have been checked."""
    return [_span(file, index) for index in range(len(file.storage))]


def _span(file: ModelFile, index: int) -> Span:
    storage = file.storage[index]
    owner, begin = (storage.base, storage.offset) if storage.base >= 0 else (index, 0)
    if storage.kind == "arena":
        begin += file.storage[owner].offset
        return Span("arena", begin, begin + storage.bytes)
    return Span(owner, begin, begin + storage.bytes)


def accesses(kernel: Kernel) -> list[Access]:
    """Of each argument, as the resource declares it."""
    undeclared: Access = "read_write"
    return [*kernel.access, *[undeclared] * (len(kernel.args) - len(kernel.access))]


def instances(file: ModelFile) -> Iterator[Instance]:
    """In the order of the schedule. Fault: an instance that has no right answer, or contradicts its operator."""
    places = spans(file)
    for index, kernel in enumerate(file.kernels):
        yield _instance(file, index, kernel, places)


def _instance(file: ModelFile, index: int, kernel: Kernel, places: Sequence[Span]) -> Instance:
    where = f"kernel {kernel.name!r} ({kernel.op})"
    touches, declared = _touches(file, kernel, places, where)
    saved = Ranges()
    reasons: list[str] = []
    for write in touches:
        if write.access == "read":
            continue
        name = file.storage[write.storage].name
        if write.access == "read_write":
            reasons.append(f"it reads and writes {name!r}")
            saved.add(write.span.memory, write.span.begin, write.span.end)
        for other in touches:
            if other is write or not other.span.overlaps(write.span):
                continue
            begin, end = max(write.span.begin, other.span.begin), min(write.span.end, other.span.end)
            shared = f"bytes {begin} to {end} of {memory_name(file, write.span.memory)}"
            other_name = file.storage[other.storage].name
            if declared and not _in_place(file, write, other):
                raise Fault(
                    f"{where} is not restorable: what it writes, {name!r}, overlaps {other_name!r} "
                    f"that it {'reads' if other.access == 'read' else 'writes too'}, {shared}: "
                    "the result would depend on the order of its blocks, whatever is saved"
                )
            reasons.append(f"what it writes, {name!r}, lies where {other_name!r} lies, {shared}")
            saved.add(write.span.memory, begin, end)
    return Instance(
        index=index,
        kernel=kernel,
        touches=touches,
        verdict="unit" if reasons else "restorable",
        reason="; ".join(reasons),
        saved=[Span(memory, begin, end) for memory, begin, end in saved],  # type: ignore[arg-type]
        declared=declared,
        conditional=any(touch.in_place for touch in touches),
    )


def _touches(file: ModelFile, kernel: Kernel, places: Sequence[Span], where: str) -> tuple[list[Touch], bool]:
    from reefd._engine import ModelError

    try:
        known = operator_arguments(kernel.op, kernel.attributes, len(kernel.args))
    except ModelError as error:
        raise Fault(f"{where}: {error}") from None
    if known is None and len(kernel.args) > MAX_UNKNOWN_ARGS:
        raise Fault(f"{where}: {len(kernel.args)} arguments of an operator that is not in the operators' table")
    touches: list[Touch] = []
    for place, (storage, access) in enumerate(zip(kernel.args, accesses(kernel), strict=True)):
        name, required, in_place = known[place] if known else (f"argument {place}", access, False)
        held = file.storage[storage]
        if access != "read" and held.kind in ("weight", "input"):
            raise Fault(f"{where} writes {held.name!r}, which is of kind {held.kind!r}")
        if access != required:
            raise Fault(
                f"{where}: the resource says that it {_VERBS[access]} {held.name!r}; the operator {_VERBS[required]} it"
            )
        touches.append(Touch(name, storage, places[storage], access, in_place))
    return touches, known is not None


_VERBS: dict[Access, str] = {"read": "reads", "write": "writes", "read_write": "reads and writes"}


def _in_place(file: ModelFile, write: Touch, read: Touch) -> bool:
    wide, other = (file.storage[touch.storage] for touch in (write, read))
    return read.in_place and read.span == write.span and wide.size == other.size


def memory_name(file: ModelFile, memory: Memory) -> str:
    return "the arena" if isinstance(memory, str) else f"{file.storage[memory].kind} {file.storage[memory].name!r}"


@dataclass(frozen=True, slots=True)
class Restart:
    """What a restart at one kernel index meets, when everything before it is done."""

    needs: int  # bytes that it and the kernels after it read, and that were written before it
    lost: Sequence[Span]  # of those, what its own blocks may already have overwritten and nobody saved: must be none
    until: int | None  # the kernel that overwrites something of them: once it has begun, it is too late to restart here


def restarts(schedule: Sequence[Instance]) -> list[Restart]:
    """The proof for the whole schedule, at every kernel index.

    The device restarts at the first unfinished kernel, so only that kernel's own blocks can have run. `until` shows
    what that rule is worth: a restart further back would be wrong once that kernel has begun.
    """
    after = Ranges()  # what the kernels from here on read of what was written before
    needed: list[Ranges] = []
    for instance in reversed(schedule):
        for write in instance.writes:
            after.remove(write.span.memory, write.span.begin, write.span.end)
        for read in instance.reads:
            after.add(read.span.memory, read.span.begin, read.span.end)
        needed.append(Ranges(after))
    needed.reverse()
    return [_restart(schedule, index, needed[index]) for index in range(len(schedule))]


def _restart(schedule: Sequence[Instance], index: int, needed: Ranges) -> Restart:
    own = Ranges()
    for memory, begin, end in _overwrites(schedule[index], needed):
        own.add(memory, begin, end)
    for span in schedule[index].saved:
        own.remove(span.memory, span.begin, span.end)
    # A unit that is done has overwritten its own operands, and the next one may have taken the snapshot's place.
    until = (
        later
        for later in range(index + 1, len(schedule))
        if schedule[index].saved or any(True for _ in _overwrites(schedule[later], needed))
    )
    return Restart(
        needs=sum(end - begin for _, begin, end in needed),
        lost=[Span(memory, begin, end) for memory, begin, end in own],  # type: ignore[arg-type]
        until=next(until, None),
    )


def _overwrites(instance: Instance, needed: Ranges) -> Iterator[tuple[Memory, int, int]]:
    for write in instance.writes:
        for begin, end in needed.overlap(write.span.memory, write.span.begin, write.span.end):
            yield write.span.memory, begin, end
