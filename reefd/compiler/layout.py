# SPDX-License-Identifier: Apache-2.0
"""Stage 5: from logical tensors to memory. Afterwards a value's shape is how it lies, row-major.

A form of a value is a permutation: physical axis i holds logical axis form[i]. A transpose in the graph moves
nothing, it renames the axes of the form that is there; a reshape that splits axes, or joins neighbours, keeps the
memory too. A copy is made only where a kernel asks for another form than there is: convolutions want channels last,
products and outputs want the logical order, element-wise kernels take what they get.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from reefd.compiler.ir import Graph, Node, Value
from reefd.compiler.operators import KERNELS

Form = tuple[int, ...]
HEADS: Form = (0, 2, 1, 3)  # the projections of all heads of a place lie together


def lay_out(graph: Graph) -> Graph:
    """A graph of kernels over memory; `reshape` nodes name the same bytes in another shape."""
    return _Layout(graph).graph


def row_major(rank: int) -> Form:
    return tuple(range(rank))


def channels_last(rank: int) -> Form:
    return (0, *range(2, rank), 1) if rank > 2 else row_major(rank)


def same_memory(shape: Sequence[int], a: Form, b: Form) -> bool:
    """Whether two forms differ only in where axes of extent 1 are."""
    return [axis for axis in a if shape[axis] != 1] == [axis for axis in b if shape[axis] != 1]


class _Layout:
    def __init__(self, logical: Graph) -> None:
        self.forms: dict[Value, dict[Form, Value]] = {}
        self.nodes: list[Node] = []
        self.inputs = set(logical.inputs)
        for value in logical.inputs:
            self.forms[value] = {row_major(value.rank): value}
        for node in logical.nodes:
            self._visit(node)
        outputs = [self.get(value, row_major(value.rank)) for value in logical.outputs]
        self.graph = Graph(logical.name, logical.inputs, outputs, logical.output_names, self.nodes)

    def get(self, value: Value, form: Form) -> Value:
        """The value in this form; made from another one where it must be, once."""
        if value.data is not None and value not in self.forms:
            self.forms[value] = {row_major(value.rank): value}
        forms = self.forms[value]
        if form in forms:
            return forms[form]
        shape = tuple(value.shape[axis] for axis in form)
        first_form, first = next(iter(forms.items()))
        if value.data is not None:
            data = np.ascontiguousarray(value.data.transpose(form))
            made = Value(value.name, value.dtype, shape, data)
        else:
            made = Value(value.name, value.dtype, shape)
            for other_form, other in forms.items():
                if same_memory(value.shape, other_form, form):
                    self.nodes.append(Node("reshape", value.name, [other], [made]))
                    break
            else:
                perm = [first_form.index(axis) for axis in form]
                name = f"{value.name}.{'x'.join(map(str, form))}"
                self.nodes.append(Node("transpose", name, [first], [made], {"perm": perm}))
        forms[form] = made
        return made

    def preferred(self, value: Value) -> Form:
        if value.data is not None:
            return row_major(value.rank)
        return next(iter(self.forms[value]))

    def _define(self, value: Value, form: Form) -> Value:
        """A kernel's output: the name of the logical value, lying in this form."""
        physical = Value(value.name, value.dtype, tuple(value.shape[axis] for axis in form))
        self.forms[value] = {form: physical}
        return physical

    def _visit(self, node: Node) -> None:
        if node.op == "transpose":
            self._transpose(node)
        elif node.op == "reshape":
            self._reshape(node)
        elif KERNELS[node.op].layout == "channels_last" or node.attributes.get("activation") == "prelu":
            self._channels_last(node)
        elif KERNELS[node.op].layout == "any":
            self._any(node)
        elif KERNELS[node.op].layout == "heads":
            inputs = [self.get(value, HEADS if place < 3 else row_major(4)) for place, value in enumerate(node.reads())]
            self._keep(node, list(inputs), [self._define(node.output, HEADS)], node.attributes)
        else:
            inputs = [self.get(value, row_major(value.rank)) for value in node.reads()]
            outputs = [self._define(value, row_major(value.rank)) for value in node.writes()]
            self._keep(node, list(inputs), list(outputs), node.attributes)

    def _keep(
        self, node: Node, inputs: list[Value | None], outputs: list[Value | None], attributes: dict[str, Any]
    ) -> None:
        """The same kernel over memory."""
        self.nodes.append(Node(node.op, node.name, inputs, outputs, attributes, sources=node.sources))

    def _transpose(self, node: Node) -> None:
        source = node.input(0)
        if source.data is not None:
            self.get(source, row_major(source.rank))
        perm = node.attributes["perm"]
        renamed = {axis: place for place, axis in enumerate(perm)}
        self.forms[node.output] = {
            tuple(renamed[axis] for axis in form): physical for form, physical in self.forms[source].items()
        }

    def _channels_last(self, node: Node) -> None:
        """Feature maps turn, weights and vectors stay as kernels/README.md describes them."""
        attributes = {key: value for key, value in node.attributes.items() if key != "axis"}
        rank = node.output.rank
        # A vector along the last logical axis wants that one last.
        form = row_major(rank) if node.attributes.get("axis", 1) == rank - 1 else channels_last(rank)
        inputs: list[Value | None] = []
        for place, value in enumerate(node.reads()):
            feature_map = place == 0 or (value.rank == node.output.rank and value.data is None)
            if place == 0 and self._reads_planar(node, value):
                attributes["input_layout"] = "nchw"
                inputs.append(self.get(value, row_major(value.rank)))
            else:
                inputs.append(self.get(value, form if feature_map else row_major(value.rank)))
        output = self._define(node.output, form)
        self._keep(node, inputs, [output], attributes)

    def _reads_planar(self, node: Node, value: Value) -> bool:
        """A network's first convolution reads the picture as the client wrote it."""
        turned = channels_last(value.rank) in self.forms[value] if value in self.forms else False
        return node.op == "conv2d" and value in self.inputs and not turned and min(value.shape[2:]) > 1

    def _any(self, node: Node) -> None:
        rank = node.output.rank
        form = self._common_form(node, rank)
        inputs = [self._aligned(value, form, rank) for value in node.reads()]
        info = KERNELS[node.op]
        attributes = dict(node.attributes)
        for key in info.axes:
            if key in attributes:
                old = attributes[key]
                attributes[key] = sorted(form.index(axis) for axis in old) if isinstance(old, list) else form.index(old)
        for key in info.per_axis:
            if key in attributes:
                old = attributes[key]
                attributes[key] = [old[start + axis] for start in range(0, len(old), rank) for axis in form]
        outputs = [self._define(value, form) for value in node.writes()]
        self._keep(node, list(inputs), list(outputs), attributes)

    def _common_form(self, node: Node, rank: int) -> Form:
        """The form of most of what the kernel reads."""
        weight: dict[Form, int] = {}
        for value in node.reads():
            if value.rank == rank and value.data is None:
                form = self.preferred(value)
                weight[form] = weight.get(form, 0) + value.bytes
        return max(weight, key=lambda form: weight[form]) if weight else row_major(rank)

    def _aligned(self, value: Value, form: Form, rank: int) -> Value:
        """An operand of lower rank gets leading axes first; without more than one real axis any form is the same."""
        if value.rank == rank:
            return self.get(value, form)
        missing = rank - value.rank
        inner = tuple(axis - missing for axis in form if axis >= missing)
        if form[:missing] == row_major(missing):
            return self.get(value, inner)
        physical = self.get(value, inner)
        shape = tuple(1 if axis < missing else value.shape[axis - missing] for axis in form)
        if physical.data is not None:
            return Value(value.name, value.dtype, shape, physical.data.reshape(shape))
        made = Value(value.name, value.dtype, shape)
        self.nodes.append(Node("reshape", value.name, [physical], [made]))
        return made

    def _reshape(self, node: Node) -> None:
        source, target = node.input(0), node.output
        form = self.preferred(source)
        atoms = _atoms(source.shape, target.shape)
        if form == row_major(source.rank) or atoms is None:
            self._alias(source, row_major(source.rank), target, row_major(target.rank))
            return
        # Atoms are numbered in logical order; each belongs to one axis of either shape.
        from_axis, to_axis, extents = atoms
        lying = [atom for axis in form for atom in range(len(extents)) if from_axis[atom] == axis]
        order = list(dict.fromkeys(to_axis[atom] for atom in lying))
        wanted = [atom for axis in order for atom in range(len(extents)) if to_axis[atom] == axis]
        target_form = (*(axis for axis in range(target.rank) if axis not in order), *order)
        if wanted == lying:
            self._alias(source, form, target, target_form)
            return
        split = Value(source.name, source.dtype, tuple(extents[atom] for atom in lying))
        self.nodes.append(Node("reshape", source.name, [self.get(source, form)], [split]))
        joined = Value(node.name, source.dtype, tuple(extents[atom] for atom in wanted))
        perm = [lying.index(atom) for atom in wanted]
        self.nodes.append(Node("transpose", node.name, [split], [joined], {"perm": perm}, sources=node.sources))
        physical = self._define(target, target_form)
        self.nodes.append(Node("reshape", node.name, [joined], [physical]))

    def _alias(self, source: Value, form: Form, target: Value, target_form: Form) -> None:
        physical = self.get(source, form)
        self.nodes.append(Node("reshape", target.name, [physical], [self._define(target, target_form)]))


def _atoms(source: Sequence[int], target: Sequence[int]) -> tuple[list[int], list[int], list[int]] | None:
    """The coarsest axes that both shapes are joins of: for each its axis in the source, in the target, and its extent.
    None where the shapes cut the elements at places that do not nest."""
    cuts = sorted(set(np.cumprod(source[::-1]).tolist()) | set(np.cumprod(target[::-1]).tolist()) | {1})
    if 0 in source or any(after % before for before, after in itertools.pairwise(cuts)):
        return None

    def owners(shape: Sequence[int]) -> list[int]:
        found, inner = [], 1
        for axis in range(len(shape))[::-1]:
            outer = inner * shape[axis]
            found += [axis] * sum(inner < cut <= outer for cut in cuts)
            inner = outer
        return found[::-1]

    extents = [after // before for before, after in itertools.pairwise(cuts)]
    return owners(source), owners(target), extents[::-1]
