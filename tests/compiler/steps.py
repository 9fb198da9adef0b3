# SPDX-License-Identifier: Apache-2.0
"""The operators of a random chain. A step takes a float32 value and adds what it wants to the graph."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .chains import MOST_ELEMENTS, Chain, Tensor

STEPS: list["Step"] = []
Take = Callable[[Chain, Tensor], object]


@dataclass(frozen=True)
class Step:
    name: str
    take: Take
    fits: Callable[[Tensor], bool]


def step(fits: Callable[[Tensor], bool] = lambda value: True) -> Callable[[Take], Take]:
    def remember(take: Take) -> Take:
        STEPS.append(Step(take.__name__, take, fits))
        return take

    return remember


def spatial(value: Tensor) -> bool:
    return value.rank in (3, 4, 5) and value.shape[1] <= 64


def picture(value: Tensor) -> bool:
    return value.rank == 4 and value.shape[1] <= 64


def growing(times: int) -> Callable[[Tensor], bool]:
    return lambda value: value.size * times <= MOST_ELEMENTS


# ---- windows


def _window(chain: Chain, value: Tensor, transposed: bool = False) -> dict[str, Any]:
    """A kernel with strides, dilations and pads that leaves at least one place of the output."""
    axes = value.rank - 2
    kernel = [chain.number(1, 4) for _ in range(axes)]
    strides = [chain.number(1, 3) for _ in range(axes)]
    dilations = [chain.number(1, min(2, extent)) for extent in value.shape[2:]]  # or a tap could miss all of it
    reach = [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    window: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    automatic = chain.choose("", "", "SAME_UPPER", "SAME_LOWER", "VALID")
    fits = all(extent >= size for extent, size in zip(value.shape[2:], reach, strict=True))
    if transposed:
        return window
    if automatic and (automatic != "VALID" or fits):
        window["auto_pad"] = automatic
        if automatic != "VALID":  # ONNX Runtime has neither of the other forms
            window["dilations"] = [1] * axes
            window["strides"] = [min(stride, size) for stride, size in zip(strides, kernel, strict=True)]
        return window
    # A pad is smaller than the kernel, as ONNX Runtime demands of pools.
    begins = [chain.number(0, size - 1) for size in kernel]
    ends = [chain.number(0, size - 1) for size in kernel]
    for axis, extent in enumerate(value.shape[2:]):
        if extent + begins[axis] + ends[axis] < reach[axis]:
            kernel[axis], begins[axis], ends[axis] = 1, 0, 0
    window["pads"] = begins + ends
    return window


@step(spatial)
def conv(chain: Chain, x: Tensor) -> None:
    channels = x.shape[1]
    group = chain.choose(*[g for g in (1, 1, 2, 3, 4, channels) if channels % g == 0])
    outputs = group * chain.number(1, 3 if group > 1 else 20)
    window = _window(chain, x)
    fan_in = channels // group * int(np.prod(window["kernel_shape"]))
    operands: list[Tensor | str] = [
        x, chain.weight(outputs, channels // group, *window["kernel_shape"], fan_in=fan_in)
    ]  # fmt: skip
    if chain.flag():
        operands.append(chain.weight(outputs))
    y = chain.one("Conv", operands, group=group, **window)
    if chain.flag():
        activation(chain, y)
    elif chain.flag() and y.shape == x.shape:
        chain.one("Add", [x, y] if chain.flag() else [y, x])


@step(lambda value: spatial(value) and value.rank < 5 and growing(40)(value))
def conv_transpose(chain: Chain, x: Tensor) -> None:
    channels = x.shape[1]
    group = chain.choose(*[g for g in (1, 1, 2, channels) if channels % g == 0])
    each = chain.number(1, 6)
    window = _window(chain, x, True)
    if chain.flag():
        window["output_padding"] = [chain.number(0, stride - 1) for stride in window["strides"]]
    if chain.flag() and all(size > 1 for size in window["kernel_shape"]):
        window["pads"] = [chain.number(0, 1) for _ in range(2 * (x.rank - 2))]
        added = window.get("output_padding", [0] * (x.rank - 2))
        for axis in range(x.rank - 2):
            extent = (x.shape[2 + axis] - 1) * window["strides"][axis] + added[axis]
            extent += (window["kernel_shape"][axis] - 1) * window["dilations"][axis] + 1
            if extent < 3:
                del window["pads"]
                break
    fan_in = channels // group * int(np.prod(window["kernel_shape"]))
    chain.one(
        "ConvTranspose",
        [x, chain.weight(channels, each, *window["kernel_shape"], fan_in=fan_in)],
        group=group,
        **window,
    )


@step(spatial)
def pool(chain: Chain, x: Tensor) -> None:
    window = _window(chain, x)
    if chain.flag():
        chain.one("MaxPool", [x], exact=x.exact, **window)
        return
    del window["dilations"]  # opset 19
    chain.one("AveragePool", [x], count_include_pad=int(chain.flag()), **window)


@step(lambda value: spatial(value))
def global_pool(chain: Chain, x: Tensor) -> None:
    chain.one(chain.choose("GlobalAveragePool", "GlobalMaxPool"), [x])


@step(lambda value: picture(value) and growing(9)(value))
def resize(chain: Chain, x: Tensor) -> None:
    mode = chain.choose("nearest", "linear")
    coordinates = chain.choose("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["coordinate_transformation_mode"] = chain.choose("asymmetric", "half_pixel")
        attributes["nearest_mode"] = chain.choose("floor", "round_prefer_floor", "ceil", "round_prefer_ceil")
    # Whole factors: at others the rounding of the coordinate itself decides.
    factors = [1, 1, chain.number(1, 3), chain.number(1, 3)]
    if chain.flag():
        operands = [x, "", chain.constant(np.array(factors, np.float32))]
    else:
        sizes = [extent * factor for extent, factor in zip(x.shape, factors, strict=True)]
        operands = [x, "", "", chain.constant(np.array(sizes, np.int64))]
    chain.one("Resize", operands, exact=mode == "nearest" and x.exact, **attributes)


@step(lambda value: spatial(value))
def normalize_channels(chain: Chain, x: Tensor) -> None:
    channels = x.shape[1]
    if chain.flag():
        variance = chain.constant(chain.random.uniform(0.5, 1.5, channels).astype(np.float32))
        y = chain.one("BatchNormalization", [x, *(chain.weight(channels) for _ in range(3)), variance])
        if chain.flag():
            activation(chain, y)
    else:
        chain.one("InstanceNormalization", [x, chain.weight(channels), chain.weight(channels)], epsilon=0.5)


@step(picture)
def local_response(chain: Chain, x: Tensor) -> None:
    chain.one("LRN", [x], size=chain.choose(1, 3, 5), alpha=0.3, beta=0.75, bias=1.0)


@step(lambda value: picture(value) and value.shape[1] % 4 == 0)
def depth_to_space(chain: Chain, x: Tensor) -> None:
    chain.one("DepthToSpace", [x], exact=x.exact, blocksize=2, mode=chain.choose("DCR", "CRD"))


@step(lambda value: picture(value) and value.shape[1] % 2 == 0)
def channel_shuffle(chain: Chain, x: Tensor) -> None:
    n, c, h, w = x.shape
    groups = chain.choose(*[g for g in (2, 3, 4) if c % g == 0])
    split = chain.one("Reshape", [x, chain.constant(np.array([n, groups, c // groups, h, w]))])
    turned = chain.one("Transpose", [split], perm=[0, 2, 1, 3, 4])
    chain.one("Reshape", [turned, chain.constant(np.array([n, c, h, w]))])


# ---- one element at a time


@step()
def activation(chain: Chain, x: Tensor) -> None:
    op = chain.choose(
        "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Selu", "HardSigmoid", "HardSwish", "Softplus", "Softsign",
        "Erf", "Abs", "Neg", "Clip", "Celu", "ThresholdedRelu", "Sin", "Cos", "Atan", "Asinh",
    )  # fmt: skip
    if op == "Clip":
        chain.one("Clip", [x, chain.constant(np.float32(-0.5)), chain.constant(np.float32(6))])
    elif op == "ThresholdedRelu":  # it jumps
        chain.one("Relu", [x])
    else:
        chain.one(op, [x])


@step()
def gated(chain: Chain, x: Tensor) -> None:
    """SiLU, HardSwish and both forms of GELU, from their parts."""
    match chain.choose("silu", "hard_swish", "relu6", "gelu", "tanh"):
        case "silu":
            chain.one("Mul", [x, chain.one("Sigmoid", [x])])
        case "hard_swish":
            chain.one("Mul", [chain.one("HardSigmoid", [x], alpha=1 / 6, beta=0.5), x])
        case "relu6":
            shifted = chain.one("Add", [x, chain.constant(np.float32(3))])
            clipped = chain.one("Clip", [shifted, chain.constant(np.float32(0)), chain.constant(np.float32(6))])
            chain.one("Div", [chain.one("Mul", [x, clipped]), chain.constant(np.float32(6))])
        case "gelu":
            erf = chain.one("Erf", [chain.one("Div", [x, chain.constant(np.float32(2**0.5))])])
            plus = chain.one("Add", [erf, chain.constant(np.float32(1))])
            chain.one("Mul", [chain.one("Mul", [x, plus]), chain.constant(np.float32(0.5))])
        case "tanh":
            cube = chain.one("Pow", [x, chain.constant(np.float32(3))])
            inner = chain.one("Add", [x, chain.one("Mul", [cube, chain.constant(np.float32(0.044715))])])
            angle = chain.one("Tanh", [chain.one("Mul", [inner, chain.constant(np.float32((2 / np.pi) ** 0.5))])])
            half = chain.one("Mul", [x, chain.constant(np.float32(0.5))])
            chain.one("Mul", [half, chain.one("Add", [angle, chain.constant(np.float32(1))])])


@step()
def tamed(chain: Chain, x: Tensor) -> None:
    """Functions that are defined, or tame, only for some arguments."""
    positive = chain.one("Add", [chain.one("Abs", [x]), chain.constant(np.float32(1))])
    op = chain.choose("Sqrt", "Log", "Reciprocal", "Pow", "Exp", "Div")
    if op == "Pow":
        chain.one("Pow", [positive, chain.constant(np.float32(chain.choose(0.5, 2, -1, 3)))])
    elif op == "Exp":
        chain.one("Exp", [chain.one("Neg", [positive])])
    elif op == "Div":
        chain.one("Div", [x, positive])
    else:
        chain.one(op, [positive])


def _broadcast(chain: Chain, shape: tuple[int, ...]) -> list[int]:
    """A shape that broadcasts to this one."""
    kept = [1 if chain.number(0, 2) == 0 else extent for extent in shape]
    return kept[chain.number(0, len(kept)) :]


@step()
def binary(chain: Chain, x: Tensor) -> None:
    op = chain.choose("Add", "Sub", "Mul", "Max", "Min", "PRelu")
    same = [value for value in chain.values if value.dtype == "float32" and value.shape == x.shape]
    choice = chain.choose("constant", "same", "input")
    if op == "PRelu" or choice == "constant":
        other: Tensor | str = chain.weight(*_broadcast(chain, x.shape))
    elif choice == "same":
        other = chain.choose(*same)
    else:
        other = chain.input("float32", *_broadcast(chain, x.shape))
    y = chain.one(op, [x, other] if op == "PRelu" or chain.flag() else [other, x])
    if chain.flag():
        activation(chain, y)


@step()
def where(chain: Chain, x: Tensor) -> None:
    condition = chain.input("bool", *_broadcast(chain, x.shape))
    other = chain.weight(*_broadcast(chain, x.shape))
    chain.one("Where", [condition, x, other] if chain.flag() else [condition, other, x])


@step()
def compared(chain: Chain, x: Tensor) -> None:
    """Integers and booleans on the side, ending in a float again."""
    shape = _broadcast(chain, x.shape)
    a = chain.input(chain.choose("int64", "int32"), *shape)
    op = chain.choose("Equal", "Less", "Greater", "GreaterOrEqual", "LessOrEqual")
    truth = chain.one(op, [a, chain.constant(np.asarray(chain.number(-5, 5), a.dtype))], exact=True)
    if chain.flag():
        truth = chain.one(chain.choose("And", "Or", "Xor"), [truth, chain.input("bool", *shape)], exact=True)
    if chain.flag():
        truth = chain.one("Not", [truth], exact=True)
    chain.one("Mul", [x, chain.one("Cast", [truth], exact=True, to=1)])


@step()
def cast(chain: Chain, x: Tensor) -> None:
    if x.exact and chain.flag():
        whole = chain.one("Cast", [x], exact=True, to=chain.choose(6, 7))
        chain.one("Cast", [chain.one("Mul", [whole, whole], exact=True)], exact=True, to=1)
        return
    wide = chain.one("Cast", [x], to=11)
    chain.one("Cast", [chain.one("Mul", [wide, chain.constant_of("float64", 0.5)])], to=1)


# ---- along an axis


@step(lambda value: value.rank >= 1)
def reduced(chain: Chain, x: Tensor) -> None:
    op = chain.choose("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceLogSumExp", "ReduceSum")
    axes = sorted({chain.number(-x.rank, x.rank - 1) % x.rank for _ in range(chain.number(1, 2))})
    keep = int(chain.flag())
    if op == "ReduceSum":
        y = chain.one(op, [x, chain.constant(np.array(axes))], keepdims=keep)
    else:
        y = chain.one(op, [x], axes=axes, keepdims=keep)
    if keep and chain.flag():
        chain.one(chain.choose("Sub", "Add"), [x, y])


@step(lambda value: value.rank >= 1)
def softmax(chain: Chain, x: Tensor) -> None:
    op = chain.choose("Softmax", "Softmax", "LogSoftmax")
    chain.one(op, [x], axis=chain.number(-x.rank, x.rank - 1))


@step(lambda value: value.rank >= 2)
def layer_norm(chain: Chain, x: Tensor) -> None:
    """With a large epsilon: a small one makes much of what rounding leaves of equal values."""
    axis = chain.choose(-1, -1, x.rank - 1, x.rank - 2)
    shape = x.shape[axis:]
    if chain.flag():
        operands = [x, chain.weight(*shape)] + ([chain.weight(*shape)] if chain.flag() else [])
        chain.one("LayerNormalization", operands, axis=axis, epsilon=0.5)
        return
    axes = [axis % x.rank - x.rank] if axis in (-1, x.rank - 1) else [-2, -1]  # from its parts
    centred = chain.one("Sub", [x, chain.one("ReduceMean", [x], axes=axes)])
    square = (
        chain.one("Pow", [centred, chain.constant(np.float32(2))])
        if chain.flag() else chain.one("Mul", [centred, centred])
    )  # fmt: skip
    variance = chain.one("ReduceMean", [square], axes=axes)
    root = chain.one("Sqrt", [chain.one("Add", [variance, chain.constant(np.float32(0.5))])])
    y = chain.one("Div", [centred, root])
    if chain.flag():
        y = chain.one("Mul", [y, chain.weight(*shape)])
        chain.one("Add", [y, chain.weight(*shape)])


@step(lambda value: value.rank >= 1)
def running_sum(chain: Chain, x: Tensor) -> None:
    axis = chain.constant(np.array(chain.number(-x.rank, x.rank - 1)))
    total = chain.one("CumSum", [x, axis], reverse=int(chain.flag()), exclusive=int(chain.flag()))
    chain.one("Mul", [total, chain.constant(np.float32(1 / max(x.shape)))])


@step(lambda value: value.rank >= 1 and value.exact)
def arg_max(chain: Chain, x: Tensor) -> None:
    places = chain.one(
        chain.choose("ArgMax", "ArgMin"), [x], exact=True, axis=chain.number(-x.rank, x.rank - 1),
        keepdims=int(chain.flag()),
    )  # fmt: skip
    chain.one("Cast", [places], exact=True, to=1)


# ---- products


@step(lambda value: value.rank >= 2)
def matmul(chain: Chain, x: Tensor) -> None:
    width = x.shape[-1]
    columns = chain.choose(1, 3, 8, 17, 32, 40)
    match chain.choose("linear", "linear", "constant", "self", "input"):
        case "linear":
            y = chain.one("MatMul", [x, chain.weight(width, columns, fan_in=width)])
            if chain.flag():
                y = chain.one("Add", [y, chain.weight(columns)])
            if chain.flag():
                activation(chain, y)
        case "constant":
            chain.one("MatMul", [chain.weight(*_batch(chain, x), 5, x.shape[-2], fan_in=x.shape[-2]), x])
        case "self":
            turned = chain.one("Transpose", [x], perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2])
            scores = chain.one("MatMul", [x, turned])
            chain.one("Mul", [scores, chain.constant(np.float32(1 / width))])
        case "input":
            y = chain.one("MatMul", [x, chain.input("float32", *_batch(chain, x), width, columns)])
            chain.one("Mul", [y, chain.constant(np.float32(width**-0.5))])


def _batch(chain: Chain, x: Tensor) -> list[int]:
    leading = [extent if chain.flag() else 1 for extent in x.shape[:-2]]
    return leading[chain.number(0, len(leading)) :] if leading else []


@step(lambda value: value.rank == 2)
def gemm(chain: Chain, x: Tensor) -> None:
    trans_a, trans_b = int(chain.flag()), int(chain.flag())
    depth, columns = x.shape[0 if trans_a else 1], chain.choose(1, 5, 16, 37)
    rows = x.shape[1 if trans_a else 0]
    b = chain.weight(*((columns, depth) if trans_b else (depth, columns)), fan_in=depth)
    operands = [x, b]
    if chain.flag():
        operands.append(chain.weight(*chain.choose((columns,), (1, columns), (rows, columns), (rows, 1), ())))
    y = chain.one(
        "Gemm", operands, transA=trans_a, transB=trans_b, alpha=chain.choose(1.0, 0.5), beta=chain.choose(1.0, 2.0)
    )
    if chain.flag():
        activation(chain, y)


@step(lambda value: value.rank == 3 and value.shape[2] % 2 == 0)
def attention(chain: Chain, x: Tensor) -> None:
    """As exporters write it, with what they vary: where the scale is, whether there is a mask, how the key turns."""
    n, length, width = x.shape
    heads = chain.choose(*[h for h in (1, 2, 3) if width % h == 0])
    each = width // heads
    split = chain.constant(np.array([n, length, heads, each]))

    def projected() -> Tensor:
        return chain.one("Reshape", [chain.one("MatMul", [x, chain.weight(width, width, fan_in=width)]), split])

    query = chain.one("Transpose", [projected()], perm=[0, 2, 1, 3])
    key = chain.one("Transpose", [projected()], perm=[0, 2, 3, 1])
    value = chain.one("Transpose", [projected()], perm=[0, 2, 1, 3])
    scale = chain.constant(np.float32(each**-0.5))
    scaled = chain.choose("query", "both", "scores", "divided", "not")
    if scaled == "query":
        query = chain.one("Mul", [query, scale])
    elif scaled == "both":
        root = chain.constant(np.float32(each**-0.25))
        query, key = chain.one("Mul", [query, root]), chain.one("Mul", [key, root])
    scores = chain.one("MatMul", [query, key])
    if scaled == "scores":
        scores = chain.one("Mul", [scores, scale])
    elif scaled == "divided":
        scores = chain.one("Div", [scores, chain.constant(np.float32(each**0.5))])
    masked = chain.choose("no", "keys", "pairs", "where")
    if masked == "where":
        hidden = chain.input("bool", n, 1, chain.choose(1, length), length)
        scores = chain.one("Where", [hidden, scores, chain.constant(np.float32(-1e4))])
    elif masked != "no":
        mask = chain.input("float32", n, chain.choose(1, heads), 1 if masked == "keys" else length, length)
        scores = chain.one("Add", [scores, mask] if chain.flag() else [mask, scores])
    mixed = chain.one("MatMul", [chain.one("Softmax", [scores], axis=-1), value])
    joined = chain.one("Transpose", [mixed], perm=[0, 2, 1, 3])
    chain.one("Reshape", [joined, chain.constant(np.array([n, length, width]))])
