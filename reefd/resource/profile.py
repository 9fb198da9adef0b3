# SPDX-License-Identifier: Apache-2.0
"""`profile.<device>.json`: what the kernels of a resource cost on one machine, and the padding plan made from that.

A profile belongs to one build of the resource (its digest), one processor, one instruction set and one release of the
kernels. One that was measured for anything else is stale: it promises nothing, and `Profile.stale` says why.
`reefctl profile` writes it; docs/profile.md says what follows from it.
"""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from reefd.resource.errors import ResourceError
from reefd.resource.schema import Kernel

VERSION = 2
MAX_PROFILE = 64 << 20  # bytes

Count = Annotated[int, Meta(ge=0, le=1 << 32)]
Nanoseconds = Annotated[int, Meta(ge=0, lt=1 << 62)]


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a profile holds."""

    processor: str  # as the processor names itself
    kernels: str  # the instruction set, and the release of reefd that the kernels came with
    compute_units: Annotated[int, Meta(ge=1, le=4096)]


class KernelProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kernel instance, in the order of the schedule."""

    name: str
    blocks: Count
    time_ns: list[Nanoseconds]  # median, with Profile.units[i] compute units
    block_ns: Nanoseconds  # the longest block, run to its end: what a shielded block may hold its unit for
    check_ns: Nanoseconds  # the longest time between check points, the block's begin and end included
    # A unit, which is saved before it begins and put back before it begins anew: the longest piece of that, between two
    # looks at the epoch. 0: it is restorable.
    copy_ns: Nanoseconds

    @property
    def bound_ns(self) -> int:
        """The longest that it may hold a compute unit after the epoch was written. An instance that is abandoned again
        and again is shielded: its blocks then run to their end."""
        return max(self.block_ns, self.check_ns, self.copy_ns)


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run of kernels: from the last segment's end, or 0, up to `last`, which it does not include."""

    last: Count
    units: Count  # compute units that best-effort work may use meanwhile; the model has the others


class Padding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that best-effort work may use while the model runs, so that the model takes at most 1 + bound times as
    long as on the whole device."""

    bound: Annotated[float, Meta(ge=0, le=10)]
    loss: Annotated[float, Meta(ge=0, le=10)]  # predicted, of the model's time
    segments: list[Segment]


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    device: str  # "cpu", "cuda", "hip"
    digest: str  # Resource.digest of the build that was measured
    machine: Machine
    units: list[Count]  # the numbers of compute units that were measured, ascending; the last is all of them
    kernels: list[KernelProfile]  # a GPU: none, kernels overlap there and their blocks are not timed
    padding: Padding  # a GPU: counted in launches, of which it does one or several for a kernel of the schedule
    network_ns: list[Nanoseconds] = []  # a GPU: of the whole model, median, with units[i] compute units
    code: str = ""  # a GPU: Resource.code_sum() of what was measured

    def stale(self, digest: str, machine: Machine) -> str:
        """Why the bounds do not hold here; empty where they do. They do not depend on the number of compute units."""
        if self.digest != digest:
            return "it was measured for another build of the model"
        for what, then, now in (
            ("processor", self.machine.processor, machine.processor),
            ("kernels", self.machine.kernels, machine.kernels),
        ):
            if then != now:
                return f"it was measured with other {what}: {then}, here {now}"
        return ""

    def stale_padding(self, digest: str, machine: Machine, code: str = "") -> str:
        """Why the padding plan does not hold here; empty where it does. `code`: the resource's for this device."""
        if stale := self.stale(digest, machine):
            return stale
        then, now = self.machine.compute_units, machine.compute_units
        if then != now:
            return f"it was measured with {then} compute units, here are {now}"
        return "it was measured with other code than the folder has now" if self.code != code else ""

    def longest(self) -> KernelProfile | None:
        """The kernel that keeps a compute unit the longest. None: there are no kernels."""
        return max(self.kernels, key=lambda kernel: kernel.bound_ns, default=None)


def file_name(device: str) -> str:
    return f"profile.{device}.json"


def parse(path: Path, content: bytes | memoryview, kernels: list[Kernel]) -> Profile:
    """A profile of these kernels. ResourceError: damaged, or of another schedule."""
    try:
        profile = msgspec.json.decode(content, type=Profile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResourceError(path, f"{error}; run `reefctl profile` again") from None
    problem = _problem(profile, kernels)
    if problem:
        raise ResourceError(path, f"{problem}; run `reefctl profile` again")
    return profile


def _problem(profile: Profile, kernels: list[Kernel]) -> str:
    if profile.version != VERSION:
        return f"version {profile.version}: this reefd reads version {VERSION}"
    total = profile.machine.compute_units
    if not profile.units or profile.units != sorted(set(profile.units)) or profile.units[-1] != total:
        return f"units are {profile.units[:16]}, which do not end with all {total}"
    # A GPU may do a kernel of the schedule in several launches, or several in one.
    if profile.device == "cpu" and [kernel.name for kernel in profile.kernels] != [kernel.name for kernel in kernels]:
        return "its kernels are not the model's"
    for kernel in profile.kernels:
        if len(kernel.time_ns) != len(profile.units):
            return f"kernel {kernel.name!r} has {len(kernel.time_ns)} times for {len(profile.units)} numbers of units"
    whole = profile.device != "cpu" and not profile.kernels
    if len(profile.network_ns) != (len(profile.units) if whole else 0):
        return f"it has {len(profile.network_ns)} times of the whole model for {len(profile.units)} numbers of units"
    ends = [segment.last for segment in profile.padding.segments]
    if ends != sorted(set(ends)) or (not whole and (ends[-1] if ends else 0) != len(profile.kernels)):
        return "its padding plan does not cover the kernels in order"
    if any(segment.units >= total for segment in profile.padding.segments):
        return "its padding plan leaves the model nothing"
    return ""
