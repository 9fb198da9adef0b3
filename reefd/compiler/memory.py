# SPDX-License-Identifier: Apache-2.0
"""Stage 6: where every tensor lies.

An owner is a tensor with memory of its own; every other value is a range of one. Reshapes are ranges already, and a
concatenation whose parts lie one after the other is done by letting their producers write into it. Owners that are
alive at the same time never share bytes of the arena, and what a kernel writes is alive together with what it reads,
so no instance overwrites its own operands and any block of it may run again.
"""

import itertools
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from reefd.compiler.ir import Graph, Node, Value
from reefd.resource.schema import ALIGNMENT

Bytes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Place:
    owner: Value
    offset: int  # bytes from the owner's start


@dataclass(slots=True)
class Plan:
    kernels: list[Node]  # the schedule; every value lies as its shape says
    places: dict[Value, Place]
    outputs: dict[Value, str]  # owners that are outputs, and their names
    offsets: dict[Value, int]  # owners in the arena
    arena_bytes: int
    live_bytes: int  # the most that is alive at one time: no plan for this schedule can take less


def plan(graph: Graph) -> Plan:
    planner = _Planner(graph)
    offsets, arena_bytes, live_bytes = planner.arena()
    return Plan(planner.kernels, planner.places, planner.outputs, offsets, arena_bytes, live_bytes)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class _Planner:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kernels = [node for node in graph.nodes if node.op != "reshape"]
        self.places: dict[Value, Place] = {}
        self.outputs: dict[Value, str] = {}
        self._resolve()
        self._own_outputs()
        self._join_in_place()

    def _resolve(self) -> None:
        for value in self.graph.inputs:
            self.places[value] = Place(value, 0)
        for node in self.graph.nodes:
            for value in node.reads():
                if value.data is not None:
                    self.places[value] = Place(value, 0)
            for value in node.writes():
                self.places[value] = self.places[node.input(0)] if node.op == "reshape" else Place(value, 0)

    def _own_outputs(self) -> None:
        """Each output gets memory of its own: what a kernel wrote becomes an output, anything else is copied to one."""
        written = {value for node in self.kernels for value in node.writes()}
        for value, name in zip(self.graph.outputs, self.graph.output_names, strict=True):
            place = self.places.setdefault(value, Place(value, 0))
            source = place.owner
            if source in written and source not in self.outputs and place.offset == 0:
                # The owner takes the output's shape, so that the resource shows what the model declares.
                owner = Value(name, value.dtype, value.shape)
                self._move(source, owner, 0)
            else:
                owner = Value(name, value.dtype, value.shape)
                copy = Value(name, value.dtype, value.shape)
                perm = list(range(value.rank))
                self.kernels.append(Node("transpose", f"{name}.copy", [value], [copy], {"perm": perm}))
                self.places[copy] = Place(owner, 0)
                self.places[owner] = Place(owner, 0)
            self.outputs[owner] = name

    def _move(self, source: Value, owner: Value, offset: int) -> None:
        """Everything that lay in `source` now lies in `owner`, from `offset`."""
        for value, place in self.places.items():
            if place.owner is source:
                self.places[value] = Place(owner, offset + place.offset)
        self.places[owner] = Place(owner, 0)

    def _join_in_place(self) -> None:
        written = {value for node in self.kernels for value in node.writes()}
        kept: list[Node] = []
        for node in self.kernels:
            if node.op != "concat" or not self._joinable(node, written):
                kept.append(node)
                continue
            target = self.places[node.output]
            offset = target.offset
            for part in node.reads():
                self._move(self.places[part].owner, target.owner, offset)
                offset += part.bytes
        self.kernels = kept

    def _joinable(self, node: Node, written: set[Value]) -> bool:
        """Whether the parts lie one after the other, each aligned, each owned by one kernel's output and nothing
        else."""
        if prod(node.output.shape[: node.attributes["axis"]]) != 1:
            return False
        owners = [self.places[part] for part in node.reads()]
        offset = self.places[node.output].offset
        for part, place in zip(node.reads(), owners, strict=True):
            if place.offset or place.owner not in written or place.owner in self.outputs or offset % ALIGNMENT:
                return False
            if place.owner.bytes != part.bytes:
                return False
            offset += part.bytes
        return len({place.owner for place in owners}) == len(owners)

    def arena(self) -> tuple[dict[Value, int], int, int]:
        born: dict[Value, int] = {}
        died: dict[Value, int] = {}
        for step, node in enumerate(self.kernels):
            for value in (*node.writes(), *node.reads()):
                owner = self.places[value].owner
                if owner.data is None and owner not in self.outputs and owner not in self.graph.inputs:
                    born.setdefault(owner, step)
                    died[owner] = step
        change = [0] * (len(self.kernels) + 1)
        for owner, step in born.items():
            change[step] += _aligned(owner.bytes)
            change[died[owner] + 1] -= _aligned(owner.bytes)
        live_bytes = max(itertools.accumulate(change))
        owners = sorted(born, key=lambda owner: (-owner.bytes, born[owner]))
        sizes = np.array([_aligned(owner.bytes) for owner in owners], np.int64)
        first = np.array([born[owner] for owner in owners])
        last = np.array([died[owner] for owner in owners])
        begins = np.zeros(len(owners), np.int64)
        for place in range(len(owners)):
            beside = (first[:place] <= last[place]) & (first[place] <= last[:place])
            begins[place] = _first_gap(begins[:place][beside], sizes[:place][beside], int(sizes[place]))
        total = int((begins + sizes).max(initial=0))
        return {owner: int(begin) for owner, begin in zip(owners, begins, strict=True)}, total, live_bytes


def _first_gap(begins: Bytes, sizes: Bytes, size: int) -> int:
    """The lowest offset where `size` bytes fit between ranges that may overlap."""
    order = np.argsort(begins, kind="stable")
    starts = begins[order]
    ends = np.maximum.accumulate(np.concatenate([[0], starts + sizes[order]]))  # of all before, then of all
    fits = np.flatnonzero(starts - ends[:-1] >= size)
    return int(ends[fits[0] if len(fits) else -1])
