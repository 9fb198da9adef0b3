# SPDX-License-Identifier: Apache-2.0
"""From a checked resource to what the engine loads."""

from reefd._engine import ModelSpec
from reefd.resource.read import Resource
from reefd.resource.restorable import accesses
from reefd.resource.tensors import buffer_of


def model_spec(resource: Resource) -> ModelSpec:
    """The engine copies the weights: the resource may be dropped afterwards."""
    model = resource.model
    spec = ModelSpec(model.name, model.arena_bytes)
    for storage in model.storage:
        owned = storage.kind == "weight" and storage.base < 0
        spec.add_storage(
            storage.name, storage.kind, storage.stype, storage.shape, storage.offset,
            buffer_of(resource.weights, storage.name) if owned else None, storage.base,
        )  # fmt: skip
    for kernel in model.kernels:
        spec.add_kernel(kernel.name, kernel.op, kernel.args, accesses(kernel), kernel.attributes)
    spec.set_inputs(model.inputs)
    spec.set_outputs(model.outputs)
    return spec
