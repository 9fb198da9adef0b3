# SPDX-License-Identifier: Apache-2.0
"""Small networks with the structure of well-known families, for what the zoo's classifiers and encoders do not have:
detectors, segmentation heads, squeeze and excitation, channel shuffles, permuted layer norms, patches as tokens."""

from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from reefd.zoo.net import Net

Describe = Callable[[Net], None]


def conv_norm(net: Net, x: str, outputs: int, kernel: int, stride: int = 1, group: int = 1) -> str:
    return net.norm(net.conv(x, outputs, kernel, stride, kernel // 2, group, bias=False))


def silu(net: Net, x: str) -> str:
    return net.node("Mul", [x, net.node("Sigmoid", [x])])


def resized(net: Net, x: str, factor: int, mode: str) -> str:
    scales = net.constant(np.array([1, 1, factor, factor], np.float32))
    extra = {"nearest_mode": "floor"} if mode == "nearest" else {}
    where = "asymmetric" if mode == "nearest" else "half_pixel"
    return net.node("Resize", [x, "", scales], mode=mode, coordinate_transformation_mode=where, **extra)


def yolo(net: Net) -> None:
    """CSP blocks, SPPF, a path down and up again, and boxes decoded in the graph as YOLOv5 and later export them."""

    def block(x: str, outputs: int, kernel: int = 1, stride: int = 1) -> str:
        return silu(net, conv_norm(net, x, outputs, kernel, stride))

    def csp(x: str, outputs: int, shortcut: bool = True) -> str:
        half = outputs // 2
        joined = block(x, outputs)
        sizes = net.ints(half, half)
        net.node("Split", [joined, sizes], f"{joined}_a", half, axis=1)
        last = net._nodes[-1]  # Split has two results
        last.output.append(f"{joined}_b")
        net._channels[f"{joined}_b"] = half
        inner = block(block(f"{joined}_b", half, 3), half, 3)
        inner = net.add(f"{joined}_b", inner) if shortcut else inner
        return block(net.concat([f"{joined}_a", f"{joined}_b", inner]), outputs)

    x = block(block(net.picture(64), 16, 3, 2), 32, 3, 2)
    fine = csp(x, 32)
    middle = csp(block(fine, 48, 3, 2), 48)
    coarse = csp(block(middle, 64, 3, 2), 64)
    narrow = block(coarse, 32)
    pools = [narrow]
    for _ in range(3):
        pools.append(net.pool(pools[-1], "Max", 5, 1, 2))
    coarse = block(net.concat(pools), 64)
    middle = csp(net.concat([resized(net, block(coarse, 48), 2, "nearest"), middle]), 48, False)
    fine = csp(net.concat([resized(net, block(middle, 32), 2, "nearest"), fine]), 32, False)
    decoded = []
    for level, (feature, side) in enumerate(((fine, 16), (middle, 8), (coarse, 4))):
        anchors, classes, count = 2, 5, side * side
        head = net.conv(feature, anchors * (5 + classes), 1)
        split = net.node("Reshape", [head, net.ints(1, anchors, 5 + classes, side, side)])
        logits = net.node("Sigmoid", [net.node("Transpose", [split], perm=[0, 1, 3, 4, 2])])

        def part(first: int, last: int, logits: str = logits) -> str:
            return net.node("Slice", [logits, net.ints(first), net.ints(last), net.ints(4)])

        grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1)[None, None].astype(np.float32) - 0.5
        sizes = np.arange(1, 2 * anchors + 1, dtype=np.float32).reshape(1, anchors, 1, 1, 2) * (level + 1)
        doubled = net.node("Mul", [part(0, 2), net.scalar(2.0)])
        centre = net.node("Mul", [net.add(doubled, net.constant(grid)), net.scalar(64.0 / side)])
        doubled = net.node("Mul", [part(2, 4), net.scalar(2.0)])
        extent = net.node("Mul", [net.node("Pow", [doubled, net.scalar(2.0)]), net.constant(sizes)])
        boxes = net.node("Concat", [centre, extent, part(4, 5 + classes)], axis=-1)
        decoded.append(net.node("Reshape", [boxes, net.ints(1, anchors * count, 5 + classes)]))
    net.returns(net.node("Concat", decoded, axis=1), [1, 672, 10], "detections")


def unet(net: Net) -> None:
    """Down by pools, up by transposed convolutions, with skips."""

    def double(x: str, outputs: int) -> str:
        return net.relu(conv_norm(net, net.relu(conv_norm(net, x, outputs, 3)), outputs, 3))

    def up(x: str, outputs: int) -> str:
        inputs = net.channels(x)
        weight = net.weight(net.fresh("up.w"), [inputs, outputs, 2, 2], inputs**-0.5)
        bias = net.weight(net.fresh("up.b"), [outputs], 0.1)
        return net.node("ConvTranspose", [x, weight, bias], channels=outputs, kernel_shape=[2, 2], strides=[2, 2])

    skips = []
    x = net.picture(48)
    for channels in (8, 16, 24):
        skips.append(double(x, channels))
        x = net.pool(skips[-1], "Max", 2, 2)
    x = double(x, 32)
    for skip in reversed(skips):
        x = double(net.concat([skip, up(x, net.channels(skip))]), net.channels(skip))
    net.returns(net.conv(x, 3, 1), [1, 3, 48, 48], "masks")


def deeplab(net: Net) -> None:
    """Dilated residual blocks, atrous pyramid pooling with image features, a decoder with bilinear resizing."""

    def dilated(x: str, outputs: int, rate: int) -> str:
        name = net.fresh("dilated")
        inputs = net.channels(x)
        weight = net.weight(f"{name}.w", [outputs, inputs, 3, 3], (2 / inputs / 9) ** 0.5)
        shape = {"kernel_shape": [3, 3], "pads": [rate] * 4, "dilations": [rate] * 2}
        return net.relu(net.norm(net.node("Conv", [x, weight], channels=outputs, **shape)))

    low = net.relu(conv_norm(net, net.picture(65), 16, 3, 2))
    x = net.relu(conv_norm(net, low, 32, 3, 2))
    for rate in (1, 2, 4):
        x = net.add(x, dilated(x, 32, rate))
    whole = net.relu(net.conv(net.global_pool(x), 16, 1))
    wide = net.node("Resize", [whole, "", "", net.ints(1, 16, 17, 17)], mode="linear")
    branches = [net.relu(conv_norm(net, x, 16, 1)), *(dilated(x, 16, rate) for rate in (3, 6, 9)), wide]
    x = net.relu(conv_norm(net, net.concat(branches), 24, 1))
    up = net.node(
        "Resize", [x, "", "", net.ints(1, 24, 33, 33)], mode="linear", coordinate_transformation_mode="align_corners"
    )
    x = net.concat([up, net.relu(conv_norm(net, low, 8, 1))])
    logits = net.conv(net.relu(conv_norm(net, x, 24, 3)), 5, 1)
    full = net.node(
        "Resize", [logits, "", "", net.ints(1, 5, 65, 65)], mode="linear",
        coordinate_transformation_mode="pytorch_half_pixel",
    )  # fmt: skip
    net.returns(net.node("Softmax", [full], axis=1), [1, 5, 65, 65], "classes")


def excited(net: Net, x: str, squeezed: int, hard: bool) -> str:
    channels = net.channels(x)
    s = net.conv(net.global_pool(x), squeezed, 1)
    s = net.conv(net.relu(s) if hard else silu(net, s), channels, 1)
    gate = net.node("HardSigmoid", [s], alpha=1 / 6, beta=0.5) if hard else net.node("Sigmoid", [s])
    return net.node("Mul", [x, gate])


def efficientnet(net: Net) -> None:
    x = silu(net, conv_norm(net, net.picture(56), 16, 3, 2))
    for expand, outputs, kernel, stride in ((1, 8, 3, 1), (6, 12, 3, 2), (6, 12, 3, 1), (6, 20, 5, 2), (6, 20, 5, 1)):
        inputs = net.channels(x)
        y = silu(net, conv_norm(net, x, inputs * expand, 1)) if expand > 1 else x
        y = silu(net, conv_norm(net, y, inputs * expand, kernel, stride, inputs * expand))
        y = conv_norm(net, excited(net, y, max(1, inputs // 4), False), outputs, 1)
        x = net.add(x, y) if stride == 1 and inputs == outputs else y
    x = silu(net, conv_norm(net, x, 64, 1))
    net.returns(net.linear(net.flatten(net.global_pool(x)), 64, 10), [1, 10], "logits")


def mobilenet_v3(net: Net) -> None:
    """Hard swish from its parts, as older exporters wrote it."""

    def hard_swish(x: str) -> str:
        shifted = net.add(x, net.scalar(3.0))
        clipped = net.node("Clip", [shifted, net.scalar(0.0), net.scalar(6.0)])
        return net.node("Div", [net.node("Mul", [x, clipped]), net.scalar(6.0)])

    x = hard_swish(conv_norm(net, net.picture(48), 16, 3, 2))
    for expand, outputs, kernel, stride in ((16, 16, 3, 2), (72, 24, 3, 2), (88, 24, 3, 1), (96, 40, 5, 2)):
        inputs = net.channels(x)
        y = hard_swish(conv_norm(net, x, expand, 1))
        y = hard_swish(conv_norm(net, y, expand, kernel, stride, expand))
        y = conv_norm(net, excited(net, y, 8, True), outputs, 1)
        x = net.add(x, y) if stride == 1 and inputs == outputs else y
    net.returns(net.linear(net.flatten(net.global_pool(hard_swish(x))), 40, 10), [1, 10], "logits")


def shufflenet(net: Net) -> None:
    """Split, depthwise branch, concatenation, channel shuffle."""

    def shuffled(x: str, side: int) -> str:
        channels = net.channels(x)
        split = net.node("Reshape", [x, net.ints(1, 2, channels // 2, side, side)])
        turned = net.node("Transpose", [split], perm=[0, 2, 1, 3, 4])
        return net.node("Reshape", [turned, net.ints(1, channels, side, side)], channels=channels)

    def part(x: str, first: int, last: int) -> str:
        return net.node("Slice", [x, net.ints(first), net.ints(last), net.ints(1)], channels=last - first)

    x = net.relu(conv_norm(net, net.picture(56), 24, 3, 2))
    x = net.pool(x, "Max", 3, 2, 1)
    side = 14
    for outputs in (48, 96):
        half = outputs // 2
        left = conv_norm(net, x, net.channels(x), 3, 2, net.channels(x))
        left = net.relu(conv_norm(net, left, half, 1))
        right = net.relu(conv_norm(net, x, half, 1))
        right = net.relu(conv_norm(net, conv_norm(net, right, half, 3, 2, half), half, 1))
        side = (side + 1) // 2
        x = shuffled(net.concat([left, right]), side)
        for _ in range(2):
            right = net.relu(conv_norm(net, part(x, half, outputs), half, 1))
            right = net.relu(conv_norm(net, conv_norm(net, right, half, 3, 1, half), half, 1))
            x = shuffled(net.concat([part(x, 0, half), right]), side)
    net.returns(net.linear(net.flatten(net.global_pool(x)), 96, 10), [1, 10], "logits")


def _gelu(net: Net, x: str) -> str:
    erf = net.node("Erf", [net.node("Div", [x, net.scalar(2**0.5)])])
    return net.node("Mul", [net.node("Mul", [x, net.add(erf, net.scalar(1.0))]), net.scalar(0.5)])


def _layer_norm(net: Net, x: str, width: int) -> str:
    """From its parts, as before opset 17."""
    centred = net.node("Sub", [x, net.node("ReduceMean", [x], axes=[-1])])
    variance = net.node("ReduceMean", [net.node("Pow", [centred, net.scalar(2.0)])], axes=[-1])
    normal = net.node("Div", [centred, net.node("Sqrt", [net.add(variance, net.scalar(1e-6))])])
    scaled = net.node("Mul", [normal, net.weight(net.fresh("scale"), [width], 0.1, 1.0)])
    return net.add(scaled, net.weight(net.fresh("offset"), [width], 0.1))


def _linear(net: Net, x: str, inputs: int, outputs: int) -> str:
    product = net.node("MatMul", [x, net.weight(net.fresh("linear.w"), [inputs, outputs], inputs**-0.5)])
    return net.add(net.weight(net.fresh("linear.b"), [outputs], 0.1), product)


def convnext(net: Net) -> None:
    """Depthwise 7 x 7, then a norm and two products over the channels, which stand last for so long."""
    x = net.conv(net.picture(32), 24, 4, 4)
    for _ in range(2):
        y = net.conv(x, 24, 7, 1, 3, 24)
        y = _layer_norm(net, net.node("Transpose", [y], perm=[0, 2, 3, 1]), 24)
        y = _linear(net, _gelu(net, _linear(net, y, 24, 96)), 96, 24)
        y = net.node("Mul", [y, net.weight(net.fresh("gamma"), [24], 0.1, 0.5)])
        x = net.add(x, net.node("Transpose", [y], perm=[0, 3, 1, 2], channels=24))
    flat = net.flatten(net.global_pool(x))
    net.returns(net.linear(flat, 24, 10), [1, 10], "logits")


def vision_transformer(net: Net) -> None:
    """Patches as tokens, one projection for query, key and value, heads split by a Gather as PyTorch exports timm's."""
    width, heads, count = 48, 3, 17
    x = net.node("Reshape", [net.conv(net.picture(32), width, 8, 8), net.ints(1, width, 16)])
    x = net.node("Transpose", [x], perm=[0, 2, 1])
    token = net.weight("class_token", [1, 1, width], 0.1)
    x = net.add(net.node("Concat", [token, x], axis=1), net.weight("places", [1, count, width], 0.1))
    for _ in range(2):
        projected = _linear(net, _layer_norm(net, x, width), width, 3 * width)
        split = net.node("Reshape", [projected, net.ints(1, count, 3, heads, width // heads)])
        turned = net.node("Transpose", [split], perm=[2, 0, 3, 1, 4])
        q, k, v = (net.node("Gather", [turned, net.constant(np.array(place, np.int64))], axis=0) for place in range(3))
        scores = net.node("MatMul", [q, net.node("Transpose", [k], perm=[0, 1, 3, 2])])
        shares = net.node("Softmax", [net.node("Mul", [scores, net.scalar((width // heads) ** -0.5)])], axis=-1)
        mixed = net.node("Transpose", [net.node("MatMul", [shares, v])], perm=[0, 2, 1, 3])
        x = net.add(x, _linear(net, net.node("Reshape", [mixed, net.ints(1, count, width)]), width, width))
        y = _gelu(net, _linear(net, _layer_norm(net, x, width), width, 4 * width))
        x = net.add(x, _linear(net, y, 4 * width, width))
    first = net.node("Gather", [_layer_norm(net, x, width), net.constant(np.array(0, np.int64))], axis=1)
    net.returns(_linear(net, first, width, 10), [1, 10], "logits")


FAMILIES: dict[str, Describe] = {
    describe.__name__: describe
    for describe in (
        yolo, unet, deeplab, efficientnet, mobilenet_v3, shufflenet, convnext, vision_transformer
    )
}  # fmt: skip


def build(name: str) -> ModelProto:
    net = Net(name, 1)
    FAMILIES[name](net)
    return net.model()
