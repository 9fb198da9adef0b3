# SPDX-License-Identifier: Apache-2.0
"""A profile in words."""

from __future__ import annotations

from pathlib import Path

from reefd.resource.profile import Profile


def describe(folder: Path, profile: Profile) -> str:
    """The profile in a few lines."""
    launches = profile.padding.segments[-1].last if profile.padding.segments else 0
    what = f"{len(profile.kernels)} kernels" if profile.kernels else f"{launches} launches"
    lines = [f"{folder}: {what} on {profile.machine.processor}, {profile.machine.kernels}"]
    for column, count in enumerate(profile.units):
        lines.append(f"  {count} compute unit{'s' if count > 1 else ''}: {_total_ns(profile, column) / 1e6:.3f} ms")
    longest = profile.longest()
    if longest is not None:
        checks = max(profile.kernels, key=lambda kernel: kernel.check_ns)
        lines.append(f"  longest between check points: {checks.check_ns / 1e3:.1f} us, {checks.name}")
        blocks = max(profile.kernels, key=lambda kernel: kernel.block_ns)
        lines.append(f"  longest block: {blocks.block_ns / 1e3:.1f} us, {blocks.name}")
        copies = max(profile.kernels, key=lambda kernel: kernel.copy_ns)
        if copies.copy_ns:
            lines.append(f"  longest copy of a unit: {copies.copy_ns / 1e3:.1f} us, {copies.name}")
        lines.append(f"  can keep preempt_bound: {-(-longest.bound_ns // 1000)}us")
    lines.append(f"  {describe_padding(profile)}")
    return "\n".join(lines)


def _total_ns(profile: Profile, column: int) -> int:
    return profile.network_ns[column] if profile.network_ns else sum(k.time_ns[column] for k in profile.kernels)


def describe_padding(profile: Profile) -> str:
    """The padding plan in a line."""
    total, segments = profile.machine.compute_units, profile.padding.segments
    if profile.network_ns:
        given = segments[0].units if segments else 0
        if given == 0:
            if len(profile.units) == 1:
                return "beside it, best-effort work gets nothing: the device cannot be split"
            return (
                f"beside it, best-effort work gets nothing: no split costs less than {profile.padding.bound:.2%} of "
                "its time and gains more than moving there and back costs"
            )
        return (
            f"beside it, best-effort work may use {given} of {total} compute units, for {profile.padding.loss:.2%} of "
            "its time"
        )
    whole = used = first = 0
    for segment in segments:
        part = sum(kernel.time_ns[-1] for kernel in profile.kernels[first : segment.last])
        whole += part * total
        used += part * segment.units
        first = segment.last
    share = used / whole if whole else 0.0
    return (
        f"beside it, best-effort work may use {share:.1%} of the device in {len(segments)} segments, "
        f"for {profile.padding.loss:.2%} of its time"
    )
