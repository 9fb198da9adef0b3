# SPDX-License-Identifier: Apache-2.0
"""The compiler's two tables: what each ONNX operator becomes, and what each kernel reads, writes and asks of its
layout.

An ONNX operator is one line of OPERATORS: the function that lowers it, the attributes that function understands, and
the element types its kernels have. Any other attribute or type is reported with the node's name, not ignored. A
kernel is one line of KERNELS. docs/operators.md is written from both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from reefd.compiler.ir import Node, Value
from reefd.compiler.lowering import elementwise, products, reductions, shapes, windows
from reefd.compiler.lowering.builder import Builder

Lower = Callable[[Builder, Node], Value | list[Value]]

FLOATS = frozenset({"float32", "float64", "float16"})
SIGNED = frozenset({"int8", "int16", "int32", "int64"})
UNSIGNED = frozenset({"uint8", "uint16", "uint32", "uint64"})
NUMBERS = FLOATS | SIGNED | UNSIGNED
ANY = NUMBERS | {"bool"}


@dataclass(frozen=True, slots=True)
class Operator:
    lower: Lower
    attributes: frozenset[str] = frozenset()
    dtypes: frozenset[str] = ANY  # of the first input
    moves: bool = False  # it computes nothing: 16-bit floats need no wider ones


def _operator(lower: Lower, attributes: str = "", dtypes: frozenset[str] = ANY) -> Operator:
    return Operator(lower, frozenset(attributes.split()), dtypes)


def _mover(lower: Lower, attributes: str = "") -> Operator:
    return Operator(lower, frozenset(attributes.split()), ANY, True)


_WINDOW = "auto_pad kernel_shape strides pads dilations"
_BROADCAST = "axis broadcast consumed_inputs"

OPERATORS: dict[str, Operator] = {
    # windows
    "Conv": _operator(windows.conv, f"{_WINDOW} group", FLOATS),
    "ConvTranspose": _operator(windows.conv_transpose, f"{_WINDOW} group output_padding output_shape", FLOATS),
    "MaxPool": _operator(windows.pool, f"{_WINDOW} ceil_mode storage_order", NUMBERS),
    "AveragePool": _operator(windows.pool, f"{_WINDOW} ceil_mode count_include_pad", FLOATS),
    "LpPool": _operator(windows.pool, f"{_WINDOW} ceil_mode p", FLOATS),
    "GlobalAveragePool": _operator(windows.global_pool, "", FLOATS),
    "GlobalMaxPool": _operator(windows.global_pool, "", FLOATS),
    "GlobalLpPool": _operator(windows.global_pool, "p", FLOATS),
    "Resize": _operator(
        windows.resize,
        "mode coordinate_transformation_mode nearest_mode cubic_coeff_a exclude_outside extrapolation_value antialias "
        "axes keep_aspect_ratio_policy",
    ),
    "Upsample": _operator(windows.resize, "mode scales"),
    # products
    "MatMul": _operator(products.matmul, "", NUMBERS),
    "Gemm": _operator(products.gemm, "alpha beta transA transB broadcast", NUMBERS),
    "Einsum": _operator(products.einsum, "equation", NUMBERS),
    # along an axis
    **{
        f"Reduce{name}": _operator(reductions.reduction, "axes keepdims noop_with_empty_axes")
        for name in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    },
    **{
        name: _operator(reductions.arg_reduce, "axis keepdims select_last_index", NUMBERS)
        for name in ("ArgMax", "ArgMin")
    },
    **{name: _operator(reductions.softmax, "axis", FLOATS) for name in ("Softmax", "LogSoftmax", "Hardmax")},
    "LayerNormalization": _operator(reductions.layer_normalization, "axis epsilon stash_type", FLOATS),
    "RMSNormalization": _operator(reductions.rms_normalization, "axis epsilon stash_type", FLOATS),
    "InstanceNormalization": _operator(reductions.instance_normalization, "epsilon consumed_inputs", FLOATS),
    "GroupNormalization": _operator(reductions.group_normalization, "epsilon num_groups stash_type", FLOATS),
    "MeanVarianceNormalization": _operator(reductions.mean_variance_normalization, "axes", FLOATS),
    "LpNormalization": _operator(reductions.lp_normalization, "axis p", FLOATS),
    "LRN": _operator(reductions.local_response_normalization, "alpha beta bias size", FLOATS),
    "CumSum": _operator(reductions.cumulative, "exclusive reverse", NUMBERS),
    "CumProd": _operator(reductions.cumulative, "exclusive reverse", NUMBERS),
    "TopK": _operator(reductions.top_k, "axis largest sorted k", NUMBERS),
    # one element at a time
    **{name: _operator(elementwise.unary, "consumed_inputs") for name in elementwise.UNARY},
    **{name: _operator(elementwise.binary, _BROADCAST) for name in elementwise.BINARY},
    **{name: _operator(elementwise.variadic, "consumed_inputs", NUMBERS) for name in ("Max", "Min", "Sum", "Mean")},
    "LeakyRelu": _operator(elementwise.leaky_relu, "alpha consumed_inputs", FLOATS),
    "Elu": _operator(elementwise.elu, "alpha consumed_inputs", FLOATS),
    "Celu": _operator(elementwise.celu, "alpha", FLOATS),
    "Selu": _operator(elementwise.selu, "alpha gamma consumed_inputs", FLOATS),
    "HardSigmoid": _operator(elementwise.hard_sigmoid, "alpha beta consumed_inputs", FLOATS),
    "ThresholdedRelu": _operator(elementwise.thresholded_relu, "alpha", FLOATS),
    "Shrink": _operator(elementwise.shrink, "bias lambd", NUMBERS),
    "Gelu": _operator(elementwise.gelu, "approximate", FLOATS),
    "Swish": _operator(elementwise.swish, "alpha", FLOATS),
    "IsNaN": _operator(elementwise.is_nan, "", FLOATS),
    "IsInf": _operator(elementwise.is_inf, "detect_negative detect_positive", FLOATS),
    "Clip": _operator(elementwise.clip, "min max consumed_inputs", NUMBERS),
    "PRelu": _operator(elementwise.prelu, "consumed_inputs", NUMBERS),
    "Mod": _operator(elementwise.mod, "fmod", NUMBERS),
    "BitShift": _operator(elementwise.bit_shift, "direction", SIGNED | UNSIGNED),
    "Cast": _mover(elementwise.cast, "to saturate round_mode"),
    "CastLike": _mover(elementwise.cast, "saturate round_mode"),
    "Where": _mover(elementwise.where),
    "Identity": _mover(elementwise.identity),
    "Dropout": _operator(elementwise.dropout, "ratio seed is_test consumed_inputs"),
    "BatchNormalization": _operator(
        elementwise.batch_normalization, "epsilon momentum training_mode spatial is_test consumed_inputs", FLOATS
    ),
    # moving and naming
    "Reshape": _mover(shapes.reshape, "allowzero shape consumed_inputs"),
    "Flatten": _mover(shapes.reshape, "axis"),
    "Squeeze": _mover(shapes.reshape, "axes"),
    "Unsqueeze": _mover(shapes.reshape, "axes"),
    "Transpose": _mover(shapes.transpose, "perm"),
    "Concat": _mover(shapes.concat, "axis"),
    "DepthToSpace": _mover(shapes.depth_to_space, "blocksize mode"),
    "SpaceToDepth": _mover(shapes.space_to_depth, "blocksize mode"),
    "Pad": _mover(shapes.pad, "mode value pads paddings"),
    "Slice": _mover(shapes.slice_, "starts ends axes"),
    "Split": _mover(shapes.split, "axis split num_outputs"),
    "Expand": _mover(shapes.expand),
    "Tile": _mover(shapes.tile),
    "Gather": _mover(shapes.gather, "axis"),
    "GatherElements": _mover(shapes.gather_elements, "axis"),
    "GatherND": _mover(shapes.gather_nd, "batch_dims"),
    "ScatterElements": _operator(shapes.scatter_elements, "axis reduction"),
    "Scatter": _mover(shapes.scatter_elements, "axis"),
    "ScatterND": _operator(shapes.scatter_nd, "reduction"),
    "ConstantOfShape": _mover(shapes.constant_of_shape, "value"),
    "OneHot": _operator(shapes.one_hot, "axis"),
    "Trilu": _mover(shapes.trilu, "upper"),
    "EyeLike": _mover(shapes.eye_like, "dtype k"),
}

# What a kernel asks of how its first input and its output lie in memory (layout.py).
Layout = Literal[
    "channels_last",  # N, spatial axes, C
    "any",            # whatever its inputs have, the same for all
    "row_major",      # the order of the logical axes
    "heads",          # batch, place, head, number of what is batch, head, place, number
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """Inputs are read and outputs written, all of them completely; `axes` names attributes that hold axis numbers,
    `per_axis` those that hold one value for each axis (or two: begins, then ends)."""

    layout: Layout = "row_major"
    axes: Sequence[str] = ()
    per_axis: Sequence[str] = ()


KERNELS: dict[str, KernelInfo] = {
    "conv2d": KernelInfo("channels_last"),
    "depthwise_conv2d": KernelInfo("channels_last"),
    "pool2d": KernelInfo("channels_last"),
    "resize2d": KernelInfo("channels_last"),
    "affine": KernelInfo("channels_last"),
    "conv_nd": KernelInfo(),
    "pool_nd": KernelInfo(),
    "matmul": KernelInfo(),
    "matmul_nd": KernelInfo(),
    "unary": KernelInfo("any"),
    "map": KernelInfo("any"),
    "binary": KernelInfo("any"),
    "where": KernelInfo("any"),
    "cast": KernelInfo("any"),
    "concat": KernelInfo("any", axes=("axis",)),
    "pad": KernelInfo("any", per_axis=("pads", "interior")),
    "slice": KernelInfo("any", per_axis=("starts", "steps")),
    "reduce": KernelInfo("any", axes=("axes",)),
    "softmax": KernelInfo("any", axes=("axis",)),
    "arg_reduce": KernelInfo("any", axes=("axis",)),
    "scan": KernelInfo("any", axes=("axis",)),
    "layer_norm": KernelInfo(),
    "attention": KernelInfo("heads"),
    "topk": KernelInfo(),
    "expand": KernelInfo(),
    "gather": KernelInfo(),
    "gather_elements": KernelInfo(),
    "gather_nd": KernelInfo(),
    "scatter_elements": KernelInfo(),
    "scatter_nd": KernelInfo(),
    "one_hot": KernelInfo(),
    "transpose": KernelInfo(),
}


def supported(domain: str, op: str) -> bool:
    return domain in ("", "ai.onnx") and op in OPERATORS
