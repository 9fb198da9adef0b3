# SPDX-License-Identifier: Apache-2.0
"""A resource: the folder a model is compiled into, and all that is known about reading, checking and writing one.

    model.json               the schedule: storage, kernel instances, inputs and outputs (schema.py)
    model.safetensors        the weights (tensors.py)
    code.sm_90a.safetensors  a GPU's code objects, one array of bytes for each group of kernels compiled together
    code.sm_90a.json         what they hold: launches, registers and memory of each kernel, the tiles chosen (code.py)
    profile.cpu.json         what its kernels cost on this machine (profile.py), once `reefctl profile` was run
    SHA256SUMS               the hashes of all, as `sha256sum -c` reads them

`read` trusts nothing: whatever it returns has been hashed, bounded (check.py), and each of its kernel instances can be
stopped and begun again, some of them only by saving first what they update (restorable.py). `load.model_spec`
turns that into what the engine loads. `write` makes the folder whole or not at all; it is imported when it is used: a
daemon writes none.
"""

from typing import TYPE_CHECKING, Any

from reefd.resource.errors import ResourceError
from reefd.resource.profile import Profile
from reefd.resource.read import Resource, read, read_code
from reefd.resource.schema import Kernel, ModelFile, Source, Storage

if TYPE_CHECKING:
    from reefd.resource.writing import write, write_code, write_profile

__all__ = [
    "Kernel",
    "ModelFile",
    "Profile",
    "Resource",
    "ResourceError",
    "Source",
    "Storage",
    "read",
    "read_code",
    "write",
    "write_code",
    "write_profile",
]


def __getattr__(name: str) -> Any:
    if name in ("write", "write_code", "write_profile"):
        from reefd.resource import writing

        return getattr(writing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
