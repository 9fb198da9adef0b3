# SPDX-License-Identifier: Apache-2.0
"""What a task may promise and plan, from the profiles of its models (docs/profile.md).

Nothing is measured when a task is loaded: a start would take longer than expected, beside real-time work that is
served, and the folder may not be writable. A bound without a profile that holds here is a promise without a reason, so
it is refused, or with `enforce: warn` served and said to be one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reefd.manifest import Manifest

if TYPE_CHECKING:
    from reefd.resource import Resource
    from reefd.resource.profile import KernelProfile, Machine, Profile


_PREEMPTING = ("reef", "reset", "wait")  # policies


def broken(
    manifest: Manifest,
    resource: Resource,
    device: str,
    machine: Machine,
    blocks: Sequence[int] = (),
    *,
    policy: str = "reef",
) -> str:
    """Why this model cannot keep, or is not known to keep, the task's preempt_bound on this kind of device (cpu, cuda,
    hip); empty where it can. `blocks`: into how many blocks the device cut each kernel, where it has loaded the model.
    `policy`: the engine's."""
    bound = manifest.preempt_bound_ns(device)
    if bound == 0:
        return ""
    promise = f"preempt_bound {_microseconds(bound)} cannot be promised"
    otherwise = ", or set `enforce: warn`" if manifest.enforce == "refuse" else ""
    if policy not in _PREEMPTING:
        return (
            f"{promise}: under policy {policy} nothing is preempted; the policies that do are {', '.join(_PREEMPTING)}"
        )
    profile = resource.profiles.get(device)
    if device in ("cuda", "hip") and (profile is None or not profile.kernels):
        return f"{promise}: the blocks of GPU kernels are not timed; leave the bound out for {device}{otherwise}"
    again = f"; run `{command(resource.path, device)}` on this machine while nothing else runs"
    if profile is None:
        return f"{promise}: there is no profile.{device}.json{again}"
    stale = profile.stale(resource.digest, machine) or _other_blocks(profile, blocks)
    if stale:
        return f"{promise}: profile.{device}.json is stale, {stale}{again}"
    longest = profile.longest()
    if longest is None or longest.bound_ns <= bound:
        return ""
    return f"{promise}: {_blame(longest)}; raise the bound to {_microseconds(longest.bound_ns)}{otherwise}"


def _blame(kernel: KernelProfile) -> str:
    words = f"kernel {kernel.name} may hold a compute unit for {_microseconds(kernel.bound_ns)}"
    if kernel.copy_ns == kernel.bound_ns:
        return f"{words} while what it updates in place is saved or put back"
    if kernel.check_ns >= kernel.block_ns:
        return f"{words} between two check points"
    return (
        f"{words}, the longest of its blocks, which runs to its end after having been abandoned again and again "
        f"({_microseconds(kernel.check_ns)} between two check points)"
    )


def _other_blocks(profile: Profile, blocks: Sequence[int]) -> str:
    for kernel, now in zip(profile.kernels, blocks, strict=False):
        if kernel.blocks != now:
            return f"its kernel {kernel.name} was cut into {kernel.blocks} blocks, now into {now}"
    return ""


def _microseconds(time_ns: int) -> str:
    return f"{-(-time_ns // 1000)}us"


def command(folder: Path, device: str) -> str:
    """What measures the profile."""
    return f"reefctl profile {folder}" + (f" --device {device}" if device != "cpu" else "")


def usable(
    resource: Resource, device: str, machine: Machine, blocks: Sequence[int], code: str = ""
) -> tuple[Profile | None, str]:
    """The profile that the engine may plan with, or None and why: times and padding hold for this many compute units
    only, and on a GPU for this code (Resource.code_sum)."""
    profile = resource.profiles.get(device)
    if profile is None:
        return None, f"there is no profile.{device}.json"
    stale = profile.stale_padding(resource.digest, machine, code) or _other_blocks(profile, blocks)
    ends = [segment.last for segment in profile.padding.segments]
    if not stale and not profile.kernels and ends[-1:] != [len(blocks)]:
        stale = f"its plan does not end with the last of {len(blocks)} launches"
    if stale:
        return None, f"profile.{device}.json is stale, {stale}"
    return profile, ""
