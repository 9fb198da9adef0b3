# SPDX-License-Identifier: Apache-2.0
"""From a compiled model's schedule to GPU kernels: the table of the operators of kernels/README.md."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from reefd.resource.schema import Kernel as Scheduled
from reefd.resource.schema import ModelFile

from .conv import ConvShape, Tile
from .lowering import elementwise, moves, products, reductions
from .lowering.state import Array, Launch, LowerError, Lowering, Workspace
from .target import Target

__all__ = ["Launch", "LowerError", "Lowered", "Workspace", "lower_model"]


class Lowered(NamedTuple):
    """A model for one target. `dtypes` and `places` say what each storage holds and where.

    A place is (memory, byte offset): memory is "arena", or the index of the input, output or weight storage.
    """

    launches: list[Launch]
    constants: dict[str, Array]
    dtypes: list[str]
    places: list[tuple[str | int, int]]
    operations: list[str]  # of each launch: the kernel of the schedule whose work it does
    tiles: dict[ConvShape, Tile]  # what was chosen


OPERATORS: dict[str, Callable[[Lowering, Scheduled], None]] = {
    "affine": elementwise.affine,
    "arg_reduce": reductions.arg_reduce,
    "attention": products.attention,
    "binary": elementwise.binary,
    "cast": elementwise.cast,
    "concat": moves.concat,
    "conv2d": products.conv,
    "depthwise_conv2d": products.conv,
    "expand": moves.expand,
    "gather": moves.gather,
    "gather_elements": moves.gather_elements,
    "gather_nd": moves.gather_nd,
    "layer_norm": reductions.layer_norm,
    "map": elementwise.map_,
    "matmul": products.matmul,
    "matmul_nd": products.batched,
    "one_hot": moves.one_hot,
    "pad": moves.pad,
    "pool2d": reductions.pool,
    "reduce": reductions.reduce,
    "resize2d": reductions.resize,
    "scan": reductions.scan,
    "slice": moves.slice_,
    "softmax": reductions.softmax,
    "topk": reductions.topk,
    "transpose": moves.transpose,
    "unary": elementwise.unary,
    "where": elementwise.where,
}


def lower_model(
    model: ModelFile,
    weights: Mapping[str, Array],
    target: Target,
    dtype: str = "float32",
    tiles: Mapping[ConvShape, Tile] | None = None,
) -> Lowered:
    """The kernels of a model for a target, in order. `tiles` are what profiling chose. LowerError names every kernel
    that has no GPU form, and why."""
    low = Lowering(model, weights, target, dtype, tiles or {})
    launches: list[Launch] = []
    operations: list[str] = []
    problems: list[str] = []
    for kernel in model.kernels:
        try:
            if kernel.op not in OPERATORS:
                raise LowerError("there is no GPU kernel for it")
            OPERATORS[kernel.op](low, kernel)
        except (LowerError, ValueError) as error:
            problems.append(f"kernel {kernel.name!r} ({kernel.op}): {error}")
        made = low.finish()
        launches += made
        operations += [kernel.name] * len(made)
    if problems:
        raise LowerError("; ".join(problems))
    places = [low.place(index) for index in range(len(model.storage))]
    return Lowered(launches, low.constants, low.dtypes, places, operations, low.tiles)
