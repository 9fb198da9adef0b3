# SPDX-License-Identifier: Apache-2.0
"""Matrix products."""

import math

import numpy as np

from reefd.compiler.errors import Unsupported
from reefd.compiler.ir import Node, Value
from reefd.compiler.lowering.builder import Builder, present, room


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


def einsum(build: Builder, node: Node) -> Value:
    """Two operands at a time: each becomes [batch, rows, inner] and [batch, inner, columns]."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    operands = list(node.reads())
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise Unsupported(f"{equation!r} for {len(operands)} operands", attribute="equation")
    terms, ellipsis = _spelled_out(terms, operands)
    if arrow:
        result = result.replace("...", ellipsis)
    else:
        letters = "".join(terms)
        result = ellipsis + "".join(
            sorted(letter for letter in set(letters) - set(ellipsis) if letters.count(letter) == 1)
        )
    value, term = operands[0], terms[0]
    value, term = _diagonal(build, value, term)
    for place in range(1, len(operands)):
        other, other_term = _diagonal(build, operands[place], terms[place])
        later = set(result).union(*terms[place + 1 :])
        value, term = _contract(build, value, term, other, other_term, later)
    gone = [axis for axis, letter in enumerate(term) if letter not in result]
    if gone:
        value = build.reduce("sum", value, gone, False)
        term = "".join(letter for letter in term if letter in result)
    return build.transpose(value, [term.index(letter) for letter in result])


def _spelled_out(terms: list[str], operands: list[Value]) -> tuple[list[str], str]:
    """Letters for the axes that `...` stands for."""
    spare = [chr(code) for code in range(0x3B1, 0x3C9)]
    longest = ""
    spelled = []
    for term, operand in zip(terms, operands, strict=True):
        if "..." in term:
            hidden = operand.rank - len(term.replace("...", ""))
            letters = "".join(spare[:hidden][::-1])
            longest = letters if len(letters) > len(longest) else longest
            term = term.replace("...", letters)
        if len(term) != operand.rank:
            raise Unsupported(f"{term!r} for an operand of rank {operand.rank}", attribute="equation")
        spelled.append(term)
    return spelled, longest


def _diagonal(build: Builder, value: Value, term: str) -> tuple[Value, str]:
    """A letter that a term has twice: the elements where both axes are at the same place."""
    for letter in term:
        if term.count(letter) < 2:
            continue
        first = term.index(letter)
        second = term.index(letter, first + 1)
        shape = [value.shape[axis] if axis in (first, second) else 1 for axis in range(value.rank)]
        room(value.shape[first] ** 2)
        keep = build.constant(np.eye(value.shape[first], dtype=bool).reshape(shape))
        masked = build.emit("where", [keep, value, build.scalar(0, value)], value.shape, value.dtype)
        return _diagonal(build, build.reduce("sum", masked, [second], False), term[:second] + term[second + 1 :])
    return value, term


def _contract(build: Builder, a: Value, a_term: str, b: Value, b_term: str, later: set[str]) -> tuple[Value, str]:
    for value_term, other in ((a_term, b_term), (b_term, a_term)):
        gone = [axis for axis, letter in enumerate(value_term) if letter not in other and letter not in later]
        if gone and value_term is a_term:
            a = build.reduce("sum", a, gone, False)
            a_term = "".join(letter for axis, letter in enumerate(a_term) if axis not in gone)
        elif gone:
            b = build.reduce("sum", b, gone, False)
            b_term = "".join(letter for axis, letter in enumerate(b_term) if axis not in gone)
    batch = [letter for letter in a_term if letter in b_term and letter in later]
    inner = [letter for letter in a_term if letter in b_term and letter not in later]
    rows = [letter for letter in a_term if letter not in b_term]
    columns = [letter for letter in b_term if letter not in a_term]
    extent = {
        letter: n for term, value in ((a_term, a), (b_term, b)) for letter, n in zip(term, value.shape, strict=True)
    }

    def grouped(value: Value, term: str, groups: list[list[str]]) -> Value:
        turned = build.transpose(value, [term.index(letter) for group in groups for letter in group])
        return build.reshape(turned, [math.prod(extent[letter] for letter in group) for group in groups])

    product = build.matmul(grouped(a, a_term, [batch, rows, inner]), grouped(b, b_term, [batch, inner, columns]))
    term = "".join([*batch, *rows, *columns])
    return build.reshape(product, [extent[letter] for letter in term]), term
