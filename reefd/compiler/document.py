# SPDX-License-Identifier: Apache-2.0
"""Writes docs/operators.md from the two tables: `python -m reefd.compiler.document > docs/operators.md`."""

from reefd.compiler.operators import ANY, FLOATS, NUMBERS, OPERATORS, SIGNED, UNSIGNED

_TYPES = {
    ANY: "any", NUMBERS: "numbers", FLOATS: "floats", SIGNED | UNSIGNED: "integers", UNSIGNED: "unsigned integers",
}  # fmt: skip
_HEAD = """# Operators

Written by `python -m reefd.compiler.document`; a test keeps it current. What each becomes is in `kernels/README.md`.

These ONNX operators (domain ai.onnx, opset 1 to the newest) compile, with the attributes that are listed and no others.
*Types* are those of the first input: floats are float32, float64 and float16 (computed as float32), integers have 8
to 64 bits, numbers are both, any adds bool. Operators that the standard defines by these are expanded: for instance
Attention, SoftmaxCrossEntropyLoss or CenterCropPad. Operands that decide a shape must be constants.

| operator | attributes | types |
|---|---|---|
"""


def document() -> str:
    rows = []
    for name, operator in sorted(OPERATORS.items()):
        attributes = " ".join(sorted(operator.attributes - {"consumed_inputs"})) or "-"
        rows.append(f"| {name} | {attributes} | {_TYPES[operator.dtypes]} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    print(document(), end="")
