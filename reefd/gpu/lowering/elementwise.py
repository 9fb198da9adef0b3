# SPDX-License-Identifier: Apache-2.0
"""unary, affine, binary, where, cast and map on the GPU."""

import numpy as np

from reefd.resource.schema import Kernel as Scheduled

from ..elementwise import binary_kernel, cast_kernel, unary_kernel, where_kernel
from .state import Lowering, activation_of


def affine(low: Lowering, k: Scheduled) -> None:
    x, scale, shift, y = k.args
    low.float_of(x, y)
    channels = low.shape(y)[-1]
    kernel = unary_kernel(
        low.size(y) // channels,
        channels,
        affine=True,
        dtype=low.dtypes[x],
        y_dtype=low.dtypes[y],
        **activation_of(k.attributes),
    )
    vectors = [low.vector(f"{k.name}.{what}", index) for what, index in (("scale", scale), ("shift", shift))]
    low.launch(kernel, x, *vectors, y)


def unary(low: Lowering, k: Scheduled) -> None:
    x, y = k.args[0], k.args[-1]
    low.float_of(x, y)
    channels = (low.shape(y) or [1])[-1]
    slope = None
    if prelu := k.attributes.get("activation") == "prelu":
        slope = low.constant(f"{k.name}.slope", np.broadcast_to(low.weight(k.args[1]).reshape(-1), (channels,)))
    kernel = unary_kernel(
        low.size(y) // channels,
        channels,
        prelu=prelu,
        dtype=low.dtypes[x],
        y_dtype=low.dtypes[y],
        **activation_of(k.attributes),
    )
    low.launch(kernel, x, slope, None, y)


def binary(low: Lowering, k: Scheduled) -> None:
    a, b, y = k.args
    kernel = binary_kernel(
        low.shape(a),
        low.shape(b),
        function=str(k.attributes["function"]),
        dtype=low.dtypes[a],
        b_dtype=low.dtypes[b],
        y_dtype=low.dtypes[y],
        **activation_of(k.attributes),
    )
    low.launch(kernel, a, b, y)


def where(low: Lowering, k: Scheduled) -> None:
    condition, a, b, y = k.args
    kernel = where_kernel(
        low.shape(condition),
        low.shape(a),
        low.shape(b),
        dtypes=(low.dtypes[a], low.dtypes[b]),
        y_dtype=low.dtypes[y],
    )
    low.launch(kernel, condition, a, b, y)


def cast(low: Lowering, k: Scheduled) -> None:
    x, y = k.args
    low.launch(cast_kernel(low.size(y), dtype=low.dtypes[x], y_dtype=low.dtypes[y]), x, y)


def map_(low: Lowering, k: Scheduled) -> None:
    """Those functions that the kernels also have as activations."""
    x, y = k.args
    low.float_of(x, y)
    given = activation_of({**k.attributes, "activation": k.attributes["function"]})
    low.launch(unary_kernel(1, low.size(y), dtype=low.dtypes[x], y_dtype=low.dtypes[y], **given), x, None, None, y)
