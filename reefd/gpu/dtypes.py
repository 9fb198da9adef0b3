# SPDX-License-Identifier: Apache-2.0
"""What a tensor's type is called in kernel source, in what its elements are computed, and the functions of floats."""

CTYPES = {
    "float32": "float", "float16": "Half", "float64": "double", "int64": "i64", "int32": "int", "int16": "i16",
    "int8": "i8", "uint64": "u64", "uint32": "u32", "uint16": "u16", "uint8": "u8", "bool": "Bool",
}  # fmt: skip
FLOATS = ("float32", "float16")
ACTIVATIONS = (
    "none", "relu", "clip", "leaky_relu", "sigmoid", "silu", "hard_sigmoid", "hard_swish", "tanh", "gelu", "gelu_tanh",
    "elu", "exp", "log", "sqrt", "reciprocal", "neg", "abs", "square", "softplus", "erf", "mish", "floor", "ceil",
    "round", "sign", "softsign", "selu", "celu", "thresholded_relu", "sin", "cos",
)  # fmt: skip


def computed(*dtypes: str) -> str:
    """The C++ type in which operands of these types are computed: floats of both sizes as float, others as they are.
    ValueError: they have none in common."""
    if all(dtype in FLOATS for dtype in dtypes):
        return "float"
    if len(set(dtypes)) > 1:
        raise ValueError(f"operands of the types {', '.join(sorted(set(dtypes)))}")
    return "u8" if dtypes[0] == "bool" else CTYPES[dtypes[0]]
