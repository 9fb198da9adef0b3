# SPDX-License-Identifier: Apache-2.0
"""What `reefctl inspect` knows of a resource, as one structure and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from reefd.inspect import cost, memory
from reefd.profile.report import describe_padding
from reefd.resource import Resource
from reefd.resource.code import CodeFile, Facts
from reefd.resource.profile import Machine, Segment
from reefd.resource.read import processors, read_code

if TYPE_CHECKING:
    from rich.table import Table


class KernelCost(msgspec.Struct, frozen=True):
    """One kernel instance. Times are 0 where nothing was measured."""

    name: str
    op: str
    nodes: list[str]  # the ONNX nodes whose work it does
    shape: list[int]  # of its first output
    flops: int
    macs: int
    bytes: int  # of every argument, once
    intensity: float  # FLOPs for each byte
    time_us: float
    share: float  # of the time of all kernels
    gflops: float  # a second


class PaddingPlan(msgspec.Struct, frozen=True):
    """How many compute units best-effort work may use beside the model, where it was profiled."""

    device: str  # cpu, cuda, hip
    machine: Machine
    bound: float  # the share of its time that the model may lose
    loss: float  # that it loses by the figures of the profile
    segments: list[Segment]
    words: str


class Inspection(msgspec.Struct, frozen=True):
    """A resource. Sizes in bytes."""

    model: str
    digest: str
    source: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    kernels: list[KernelCost]
    flops: int
    macs: int
    weight_bytes: int
    arena_bytes: int  # activation memory of one request in work
    live_bytes: int  # the most that is alive at a time: no plan for this schedule can take less
    time_us: float
    timed_with: str  # what the times were measured with; empty: not measured
    code: list[CodeFile]  # one for each GPU that there is code for
    padding: list[PaddingPlan]  # one for each device that the model was profiled on


def inspect(resource: Resource, times_ns: list[float] | None = None, timed_with: str = "") -> Inspection:
    """`times_ns`: of each kernel, in order."""
    model = resource.model
    times = times_ns or [0.0] * len(model.kernels)
    total = sum(times)
    kernels = []
    for kernel, time in zip(model.kernels, times, strict=True):
        operations, moved = cost.flops(kernel, model.storage), cost.traffic(kernel, model.storage)
        written = next((a for a, access in zip(kernel.args, kernel.access, strict=False) if access != "read"), -1)
        kernels.append(
            KernelCost(
                name=kernel.name,
                op=kernel.op,
                nodes=kernel.nodes,
                shape=model.storage[written].shape if kernel.args else [],
                flops=operations,
                macs=cost.macs(kernel, model.storage),
                bytes=moved,
                intensity=round(operations / moved, 3) if moved else 0.0,
                time_us=round(time / 1e3, 3),
                share=time / total if total else 0.0,
                gflops=round(operations / time, 3) if time else 0.0,
            )
        )

    def tensors(indices: list[int]) -> dict[str, str]:
        storages = [model.storage[index] for index in indices]
        return {s.name: f"{s.stype} {'x'.join(map(str, s.shape))}" for s in storages}

    return Inspection(
        model=model.name,
        digest=resource.digest,
        source=model.source.file if model.source else "",
        inputs=tensors(model.inputs),
        outputs=tensors(model.outputs),
        kernels=kernels,
        flops=sum(kernel.flops for kernel in kernels),
        macs=sum(kernel.macs for kernel in kernels),
        weight_bytes=sum(array.nbytes for array in resource.weights.values()),
        arena_bytes=model.arena_bytes,
        live_bytes=max(memory.live_bytes(model), default=0),
        time_us=round(total / 1e3, 3),
        timed_with=timed_with,
        code=[made.file for processor in processors(resource) if (made := read_code(resource, processor))],
        padding=[
            PaddingPlan(
                device,
                profile.machine,
                profile.padding.bound,
                profile.padding.loss,
                profile.padding.segments,
                describe_padding(profile),
            )
            for device, profile in sorted(resource.profiles.items())
        ],
    )


def show(found: Inspection, *, with_code: bool = False) -> None:
    """The table for people; with the kernels of each GPU's code, where asked for."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, header_style="bold")
    for column in ("kernel", "op", "nodes", "output"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    columns = ["MFLOP", "MB", "FLOP/B", *(["us", "%", "GFLOP/s"] if found.timed_with else [])]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for kernel in found.kernels:
        timed = (f"{kernel.time_us:,.1f}", f"{kernel.share:.1%}"[:-1], f"{kernel.gflops:,.1f}")
        table.add_row(
            kernel.name, kernel.op, " ".join(kernel.nodes), "x".join(map(str, kernel.shape)),
            f"{kernel.flops / 1e6:,.2f}", f"{kernel.bytes / 1e6:,.2f}", f"{kernel.intensity:,.1f}",
            *(timed if found.timed_with else ()),
        )  # fmt: skip
    console.print(table)
    console.print(
        f"\n{found.model}: {len(found.kernels)} kernels, {found.macs / 1e9:.3f} GMAC, {found.flops / 1e9:.3f} GFLOP, "
        f"weights {found.weight_bytes / 1e6:,.1f} MB",
        soft_wrap=True,
    )
    ratio = f" ({found.arena_bytes / found.live_bytes:.2f} times)" if found.live_bytes else ""
    console.print(
        f"activations: {found.arena_bytes / 1e6:,.2f} MB at peak, {found.live_bytes / 1e6:,.2f} MB are alive at a "
        f"time at least{ratio}",
        soft_wrap=True,
    )
    if found.timed_with:
        rate = found.flops / found.time_us / 1e3 if found.time_us else 0.0
        console.print(f"time: {found.time_us / 1e3:,.3f} ms, {rate:,.1f} GFLOP/s, {found.timed_with}", soft_wrap=True)
    for plan in found.padding:
        console.print(f"profiled on {plan.machine.processor} ({plan.device}): {plan.words}", soft_wrap=True)
    for code in found.code:
        if with_code:
            console.print()
            console.print(_code_table(code))
        console.print(_describe_code(code), soft_wrap=True)


def _code_table(code: CodeFile) -> Table:
    """Each launch of a GPU, and of its two forms what the compiler noted."""
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("operation", "kernel"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for column in ("blocks", "threads", "registers", "scalar", "shared", "scratch", "occupancy"):
        table.add_column(column, justify="right", no_wrap=True)
    kernels = {kernel.name: kernel for kernel in code.kernels}
    for launch in code.launches:
        row = [launch.operation or "(outputs)", launch.kernel, f"{launch.blocks:,}", f"{launch.threads:,}"]
        if launch.kernel in kernels:
            plain, other = kernels[launch.kernel].plain, kernels[launch.kernel].preemptible
            row += [
                _both(str(plain.vector_registers), str(other.vector_registers)),
                _both(str(plain.scalar_registers), str(other.scalar_registers)),
                f"{plain.shared_bytes:,}",
                _both(str(plain.scratch_bytes), str(other.scratch_bytes)),
                _both(f"{plain.occupancy:.0%}", f"{other.occupancy:.0%}"),
            ]
        table.add_row(*row)
    return table


def _both(plain: str, preemptible: str) -> str:
    return plain if plain == preemptible else f"{plain} / {preemptible}"


def _describe_code(code: CodeFile) -> str:
    facts: list[Facts] = [facts for kernel in code.kernels for facts in (kernel.plain, kernel.preemptible)]
    words = f"code for {code.processor}: {len(code.launches)} launches"
    if facts:
        spilling = sum(f.scratch_bytes > 0 for f in facts)
        words += (
            f" of {len(code.kernels)} kernels, at most {max(f.vector_registers for f in facts)} vector registers, "
            f"occupancy from {min(f.occupancy for f in facts):.0%}, "
            + (f"{spilling} of {len(facts)} entry points use scratch memory" if spilling else "no scratch memory")
        )
    return words + (f", tiles measured on {code.tuned_on}" if code.tuned_on else "")
