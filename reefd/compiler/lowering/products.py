# SPDX-License-Identifier: Apache-2.0
"""Matrix products."""

import numpy as np

from reefd.compiler.ir import Node, Value
from reefd.compiler.lowering.builder import Builder, present


def matmul(build: Builder, node: Node) -> Value:
    a, b = node.input(0), node.input(1)
    left = build.reshape(a, [1, a.shape[0]]) if a.rank == 1 else a
    right = build.reshape(b, [b.shape[0], 1]) if b.rank == 1 else b
    return build.reshape(build.matmul(left, right), node.output.shape)


def gemm(build: Builder, node: Node) -> Value:
    a, b, c = node.input(0), node.input(1), present(node, 2)
    alpha, beta = float(node.attributes.get("alpha", 1.0)), float(node.attributes.get("beta", 1.0))
    if node.attributes.get("transA", 0):
        a = build.transpose(a, [1, 0])
    if node.attributes.get("transB", 0):
        b = build.transpose(b, [1, 0])
    if alpha != 1.0:
        if b.data is not None:
            b = build.constant((b.data * np.asarray(alpha, b.dtype)).astype(b.dtype), name=b.name)
        else:
            a = build.binary("mul", a, build.scalar(alpha, a))
    y = build.matmul(a, b)
    if c is None or beta == 0.0:
        return y
    if beta != 1.0:
        c = (
            build.constant((c.data * np.asarray(beta, c.dtype)).astype(c.dtype), name=c.name)
            if c.data is not None
            else build.binary("mul", c, build.scalar(beta, c))
        )
    return build.binary("add", y, c)
