# SPDX-License-Identifier: Apache-2.0
"""What must hold for a schedule before a device may see it.

Bounds and sizes first. Then what each kernel instance reads and writes: as its operator does, and in no way that makes
the result depend on the order of its blocks (restorable.py). Then order: nothing is read before it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reefd.resource import restorable
from reefd.resource.ranges import Ranges
from reefd.resource.restorable import Fault
from reefd.resource.schema import ALIGNMENT, ITEM_SIZES, MAX_RANK, VERSION, Kernel, ModelFile, Storage
from reefd.resource.tensors import described

if TYPE_CHECKING:
    import numpy as np

MAX_STORAGES = 200_000
MAX_KERNELS = 100_000
MAX_ARGS = 4_096
MAX_ATTRIBUTES = 64
MAX_LIST = 4_096
MAX_NAME = 1_024
MAX_BYTES = 1 << 40

__all__ = ["Fault", "model", "weights"]


def model(file: ModelFile) -> None:
    """Raises Fault at the first thing that does not hold."""
    if file.version != VERSION:
        raise Fault(f"version {file.version}: this reefd reads version {VERSION}; compile the model again")
    _name("the model", file.name)
    if not 0 <= file.arena_bytes <= MAX_BYTES:
        raise Fault(f"arena_bytes is {file.arena_bytes}")
    if len(file.storage) > MAX_STORAGES or len(file.kernels) > MAX_KERNELS:
        raise Fault(f"{len(file.storage)} storages and {len(file.kernels)} kernels are too many")
    for index, storage in enumerate(file.storage):
        _storage(file, index, storage)
    if not 0 <= file.live_bytes <= file.arena_bytes:
        raise Fault(f"live_bytes is {file.live_bytes}, arena_bytes {file.arena_bytes}")
    _ends(file, "inputs", file.inputs, "input")
    _ends(file, "outputs", file.outputs, "output")
    for kernel in file.kernels:
        _kernel(file, kernel)
    for _ in restorable.instances(file):
        pass  # each has a right answer; those that are not restorable run as units
    _order(file)


def weights(file: ModelFile, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises Fault unless `arrays` holds exactly the model's weights."""
    owned = [storage for storage in file.storage if storage.kind == "weight" and storage.base < 0]
    wanted = {storage.name: storage for storage in owned}
    if len(wanted) != len(owned):
        raise Fault("two weights have the same name")
    found = described(arrays)
    for name, storage in wanted.items():
        if name not in found:
            raise Fault(f"weight {name!r} is not in the weight file")
        dtype, shape = found[name]
        if dtype != storage.stype or shape != storage.shape:
            raise Fault(f"weight {name!r} is {storage.stype} {storage.shape} here, {dtype} {shape} there")
    if len(found) != len(wanted):
        raise Fault(f"the weight file holds {min(set(found) - set(wanted))!r}, which no storage names")


def _name(what: str, name: str) -> None:
    if not name or len(name) > MAX_NAME or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise Fault(f"{what} has the name {name[:80]!r}: 1 to {MAX_NAME} printable characters")


def _storage(file: ModelFile, index: int, storage: Storage) -> None:
    _name(f"storage {index}", storage.name)
    what = f"storage {index} ({storage.name!r})"
    if storage.stype not in ITEM_SIZES:
        raise Fault(f"{what}: stype {storage.stype!r} is unknown")
    if len(storage.shape) > MAX_RANK or any(extent < 0 for extent in storage.shape):
        raise Fault(f"{what}: shape {storage.shape}")
    size = 1
    for extent in storage.shape:
        size *= extent
    if size != storage.size or size * ITEM_SIZES[storage.stype] > MAX_BYTES:
        raise Fault(f"{what}: size {storage.size}, but its shape {storage.shape} has {size} elements")
    if storage.offset < 0:
        raise Fault(f"{what}: offset {storage.offset}")
    if storage.base >= 0:
        _view(file, what, storage)
    elif storage.base != -1:
        raise Fault(f"{what}: base {storage.base}")
    elif storage.kind == "arena":
        if storage.offset % ALIGNMENT or storage.offset + storage.bytes > file.arena_bytes:
            raise Fault(
                f"{what}: bytes {storage.offset} to {storage.offset + storage.bytes} of an arena of "
                f"{file.arena_bytes}, aligned to {ALIGNMENT}"
            )
    elif storage.offset:
        raise Fault(f"{what}: only an arena storage or a view has an offset")


def _view(file: ModelFile, what: str, storage: Storage) -> None:
    if storage.base >= len(file.storage):
        raise Fault(f"{what}: base {storage.base} of {len(file.storage)} storages")
    base = file.storage[storage.base]
    if base.base != -1 or base.kind != storage.kind:
        raise Fault(f"{what}: its base {base.name!r} is a view itself, or of another kind")
    if base.stype not in ITEM_SIZES or storage.offset + storage.bytes > base.bytes:
        raise Fault(f"{what}: does not lie within its base {base.name!r}")
    if storage.offset % ALIGNMENT:
        raise Fault(f"{what}: offset {storage.offset} is not a multiple of {ALIGNMENT}")


def _ends(file: ModelFile, what: str, indices: list[int], kind: str) -> None:
    found = [index for index, storage in enumerate(file.storage) if storage.kind == kind and storage.base < 0]
    if sorted(indices) != found:
        raise Fault(f"{what} are {indices[:16]}, but the storages of kind {kind!r} are {found[:16]}")
    names = [file.storage[index].name for index in indices]
    if len(set(names)) != len(names):
        raise Fault(f"two {what} have the same name")


def _kernel(file: ModelFile, kernel: Kernel) -> None:
    _name("a kernel", kernel.name)
    if not kernel.op:
        raise Fault(f"kernel {kernel.name!r} names no op")
    if len(kernel.args) > MAX_ARGS or not all(0 <= argument < len(file.storage) for argument in kernel.args):
        raise Fault(f"kernel {kernel.name!r}: args {kernel.args[:16]} of {len(file.storage)} storages")
    if len(kernel.access) > len(kernel.args):
        raise Fault(f"kernel {kernel.name!r}: {len(kernel.access)} accesses for {len(kernel.args)} args")
    if len(kernel.attributes) > MAX_ATTRIBUTES:
        raise Fault(f"kernel {kernel.name!r}: {len(kernel.attributes)} attributes")
    for node in kernel.nodes:
        _name(f"a node of kernel {kernel.name!r}", node)
    for key, value in kernel.attributes.items():
        _name(f"an attribute of kernel {kernel.name!r}", key)
        if isinstance(value, list | str) and len(value) > MAX_LIST:
            raise Fault(f"kernel {kernel.name!r}: attribute {key!r} has {len(value)} items")
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, int) and not -(2**63) <= number < 2**63 for number in numbers):
            raise Fault(f"kernel {kernel.name!r}: attribute {key!r} does not fit 64 bits")


def _order(file: ModelFile) -> None:
    """Every byte that is read was written by an earlier instance, and every output is written completely."""
    places = restorable.spans(file)
    written = Ranges()

    def covered(who: str, index: int) -> None:
        span = places[index]
        if not written.covers(span.memory, span.begin, span.end):
            raise Fault(f"{who} {file.storage[index].name!r} before anything wrote it")

    for kernel in file.kernels:
        accesses = list(zip(kernel.args, restorable.accesses(kernel), strict=True))
        for argument, access in accesses:
            if access != "write" and file.storage[argument].kind in ("arena", "output"):
                covered(f"kernel {kernel.name!r} reads", argument)
        for argument, access in accesses:
            if access != "read":
                written.add(places[argument].memory, places[argument].begin, places[argument].end)
    for index in file.outputs:
        covered("the model returns", index)
