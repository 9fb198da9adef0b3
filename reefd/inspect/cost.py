# SPDX-License-Identifier: Apache-2.0
"""Arithmetic and memory traffic of a kernel instance, from its shapes alone.

FLOPs are those of the definition, a multiplication and an addition being two: an algorithm that needs fewer (Winograd)
is not credited with fewer. What only moves data has none. Bytes are those of every argument once: the least that must
move when nothing is in a cache.
"""

from math import prod

from reefd.resource.schema import Kernel, Storage

_MOVES = (
    "transpose", "concat", "slice", "expand", "pad", "gather", "gather_elements", "gather_nd", "scatter_elements",
    "scatter_nd", "one_hot", "cast", "where",
)  # fmt: skip


def macs(kernel: Kernel, storages: list[Storage]) -> int:
    """Multiplications with an addition, of the operators that consist of them."""
    shapes = [storages[argument].shape for argument in kernel.args]
    written = _written(kernel, storages)
    match kernel.op:
        case "conv2d" | "depthwise_conv2d" | "conv_nd":
            return written * prod(shapes[1][1:])  # a weight [O, C/g, ...]: one sum over C/g and the window each
        case "matmul" | "matmul_nd":
            rows = 0 if kernel.attributes.get("trans_a") else 1
            depth = shapes[0][-1 if rows else -2]
            return written * depth
        case "attention":
            batch, length, heads, width = shapes[0]
            keys, values = shapes[1][1], shapes[2][3]
            return batch * heads * length * keys * (width + values)
    return 0


def flops(kernel: Kernel, storages: list[Storage]) -> int:
    """Floating-point operations; each comparison, exponential or the like counts as one."""
    written = _written(kernel, storages)
    read = storages[kernel.args[0]].size if kernel.args else 0
    attributes = kernel.attributes
    ends = sum(1 for end in ("bias", "residual") if attributes.get(end))
    ends += 1 if attributes.get("activation") not in (None, "none") else 0
    if kernel.op in _MOVES:
        return 0
    products = macs(kernel, storages)
    if products:
        return 2 * products + ends * written
    match kernel.op:
        case "pool2d":
            window = attributes.get("kernel", [])
            return written * int(prod(window)) if isinstance(window, list) else written
        case "softmax":
            return 5 * written  # greatest, difference, exponential, sum, quotient
        case "layer_norm":
            return 8 * written  # mean, difference, square, sum, root, quotient, scale, offset
        case "affine":
            return 2 * written + ends * written
        case "reduce" | "arg_reduce" | "pool_nd" | "topk" | "scan":
            return read
        case "resize2d":
            return written * (6 if attributes.get("mode") == "linear" else 0)
        case "unary":
            return written
    return written + ends * written


def traffic(kernel: Kernel, storages: list[Storage]) -> int:
    """Bytes of all arguments, each storage once."""
    return sum(storages[argument].bytes for argument in dict.fromkeys(kernel.args))


def _written(kernel: Kernel, storages: list[Storage]) -> int:
    """Elements of the first argument that is written."""
    for argument, access in zip(kernel.args, kernel.access, strict=False):
        if access != "read":
            return storages[argument].size
    return storages[kernel.args[-1]].size if kernel.args else 0
