# SPDX-License-Identifier: Apache-2.0
"""Convolutional networks for 1000 classes, from their papers, in the forms that were published with weights."""

from collections.abc import Sequence

from reefd.zoo.net import Net

CLASSES = 1000


def _classify(net: Net, x: str, inputs: int) -> None:
    net.returns(net.linear(x, inputs, CLASSES, gain=1.0), [net.batch, CLASSES], "logits")


def _dense_head(net: Net, x: str, inputs: int) -> None:
    """The two wide layers that AlexNet and VGG end in."""
    x = net.relu(net.linear(net.flatten(x), inputs, 4096))
    _classify(net, net.relu(net.linear(x, 4096, 4096)), 4096)


def alexnet(net: Net) -> None:
    x = net.pool(net.relu(net.conv(net.picture(224), 64, 11, 4, 2)), "Max", 3, 2)
    x = net.pool(net.relu(net.conv(x, 192, 5, 1, 2)), "Max", 3, 2)
    for channels in (384, 256, 256):
        x = net.relu(net.conv(x, channels, 3, 1, 1))
    _dense_head(net, net.pool(x, "Max", 3, 2), 256 * 6 * 6)


def _vgg(net: Net, repeats: Sequence[int]) -> None:
    x = net.picture(224)
    for channels, count in zip((64, 128, 256, 512, 512), repeats, strict=True):
        for _ in range(count):
            x = net.relu(net.conv(x, channels, 3, 1, 1))
        x = net.pool(x, "Max", 2, 2)
    _dense_head(net, x, 512 * 7 * 7)


def vgg16(net: Net) -> None:
    _vgg(net, (2, 2, 3, 3, 3))


def vgg19(net: Net) -> None:
    _vgg(net, (2, 2, 4, 4, 4))


def _resnet(net: Net, repeats: Sequence[int], bottleneck: bool) -> None:
    x = net.relu(net.norm(net.conv(net.picture(224), 64, 7, 2, 3, bias=False)))
    x = net.pool(x, "Max", 3, 2, 1)
    widen = 4 if bottleneck else 1
    for stage, count in enumerate(repeats):
        width = 64 << stage
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            if bottleneck:
                y = net.relu(net.norm(net.conv(x, width, 1, bias=False)))
                y = net.relu(net.norm(net.conv(y, width, 3, stride, 1, bias=False)))
                y = net.norm(net.conv(y, width * 4, 1, bias=False), 0.3)
            else:
                y = net.relu(net.norm(net.conv(x, width, 3, stride, 1, bias=False)))
                y = net.norm(net.conv(y, width, 3, 1, 1, bias=False), 0.3)
            if net.channels(x) != width * widen:
                x = net.norm(net.conv(x, width * widen, 1, stride, bias=False))
            x = net.relu(net.add(y, x))
    _classify(net, net.flatten(net.global_pool(x)), net.channels(x))


def resnet18(net: Net) -> None:
    _resnet(net, (2, 2, 2, 2), False)


def resnet50(net: Net) -> None:
    _resnet(net, (3, 4, 6, 3), True)


def resnet152(net: Net) -> None:
    _resnet(net, (3, 8, 36, 3), True)


def _densenet(net: Net, repeats: Sequence[int], growth: int = 32) -> None:
    x = net.relu(net.norm(net.conv(net.picture(224), 64, 7, 2, 3, bias=False)))
    x = net.pool(x, "Max", 3, 2, 1)
    for stage, count in enumerate(repeats):
        for _ in range(count):
            y = net.conv(net.relu(net.norm(x)), 4 * growth, 1, bias=False)
            y = net.conv(net.relu(net.norm(y)), growth, 3, 1, 1, bias=False)
            x = net.concat([x, y])
        if stage + 1 < len(repeats):
            x = net.conv(net.relu(net.norm(x)), net.channels(x) // 2, 1, bias=False)
            x = net.pool(x, "Average", 2, 2)
    x = net.relu(net.norm(x))
    _classify(net, net.flatten(net.global_pool(x)), net.channels(x))


def densenet121(net: Net) -> None:
    _densenet(net, (6, 12, 24, 16))


def densenet201(net: Net) -> None:
    _densenet(net, (6, 12, 48, 32))


def mobilenet_v2(net: Net) -> None:
    def block(x: str, outputs: int, kernel: int, stride: int = 1, group: int = 1) -> str:
        y = net.norm(net.conv(x, outputs, kernel, stride, kernel // 2, group, bias=False))
        return net.node("Clip", [y, low, high])

    low, high = net.scalar(0.0), net.scalar(6.0)
    x = block(net.picture(224), 32, 3, 2)
    for expand, outputs, count, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for place in range(count):
            inputs, stride = net.channels(x), first if place == 0 else 1
            y = block(x, inputs * expand, 1) if expand != 1 else x
            y = block(y, inputs * expand, 3, stride, inputs * expand)
            y = net.norm(net.conv(y, outputs, 1, bias=False))
            x = net.add(x, y) if stride == 1 and inputs == outputs else y
    x = block(x, 1280, 1)
    _classify(net, net.flatten(net.global_pool(x)), 1280)


def squeezenet(net: Net) -> None:
    def fire(x: str, squeeze: int, expand: int) -> str:
        s = net.relu(net.conv(x, squeeze, 1))
        return net.concat([net.relu(net.conv(s, expand, 1)), net.relu(net.conv(s, expand, 3, 1, 1))])

    x = net.relu(net.conv(net.picture(224), 96, 7, 2))
    x = net.pool(x, "Max", 3, 2, ceil_mode=1)
    x = fire(fire(fire(x, 16, 64), 16, 64), 32, 128)
    x = net.pool(x, "Max", 3, 2, ceil_mode=1)
    x = fire(fire(fire(fire(x, 32, 128), 48, 192), 48, 192), 64, 256)
    x = fire(net.pool(x, "Max", 3, 2, ceil_mode=1), 64, 256)
    x = net.global_pool(net.relu(net.conv(x, CLASSES, 1)))
    net.returns(net.flatten(x), [net.batch, CLASSES], "logits")


def inception_v2(net: Net) -> None:
    """GoogLeNet with batch normalisation and two 3x3 in place of each 5x5 (BN-Inception)."""

    def conv(x: str, outputs: int, kernel: int = 1, stride: int = 1) -> str:
        return net.relu(net.norm(net.conv(x, outputs, kernel, stride, kernel // 2)))

    def halve(x: str) -> str:
        return net.pool(x, "Max", 3, 2, ceil_mode=1)

    x = halve(conv(net.picture(224), 64, 7, 2))
    x = halve(conv(conv(x, 64), 192, 3))
    for single, narrow, triple, narrow_twice, twice, kind, pooled in (
        (64, 64, 64, 64, 96, "Average", 32), (64, 64, 96, 64, 96, "Average", 64), (0, 128, 160, 64, 96, "", 0),
        (224, 64, 96, 96, 128, "Average", 128), (192, 96, 128, 96, 128, "Average", 128),
        (160, 128, 160, 128, 160, "Average", 128), (96, 128, 192, 160, 192, "Average", 128),
        (0, 128, 192, 192, 256, "", 0), (352, 192, 320, 160, 224, "Average", 128),
        (352, 192, 320, 192, 224, "Max", 128),
    ):  # fmt: skip
        stride = 1 if single else 2
        once = conv(conv(x, narrow), triple, 3, stride)
        more = conv(conv(conv(x, narrow_twice), twice, 3), twice, 3, stride)
        if single:
            x = net.concat([conv(x, single), once, more, conv(net.pool(x, kind, 3, 1, 1), pooled)])
        else:
            x = net.concat([once, more, halve(x)])
    _classify(net, net.flatten(net.global_pool(x)), net.channels(x))


def inception_v3(net: Net) -> None:
    def conv(
        x: str, outputs: int, kernel: int | tuple[int, int], stride: int = 1, pad: int | tuple[int, int] = 0
    ) -> str:
        return net.relu(net.norm(net.conv(x, outputs, kernel, stride, pad, bias=False), epsilon=1e-3))

    def mean(x: str) -> str:
        return net.pool(x, "Average", 3, 1, 1, count_include_pad=1)

    def row(x: str, outputs: int) -> str:
        return conv(x, outputs, (1, 7), 1, (0, 3))

    def column(x: str, outputs: int) -> str:
        return conv(x, outputs, (7, 1), 1, (3, 0))

    def cross(x: str) -> str:
        return net.concat([conv(x, 384, (1, 3), 1, (0, 1)), conv(x, 384, (3, 1), 1, (1, 0))])

    x = conv(conv(conv(net.picture(299), 32, 3, 2), 32, 3), 64, 3, 1, 1)
    x = conv(conv(net.pool(x, "Max", 3, 2), 80, 1), 192, 3)
    x = net.pool(x, "Max", 3, 2)
    for features in (32, 64, 64):
        triple = conv(conv(conv(x, 64, 1), 96, 3, 1, 1), 96, 3, 1, 1)
        x = net.concat([conv(x, 64, 1), conv(conv(x, 48, 1), 64, 5, 1, 2), triple, conv(mean(x), features, 1)])
    triple = conv(conv(conv(x, 64, 1), 96, 3, 1, 1), 96, 3, 2)
    x = net.concat([conv(x, 384, 3, 2), triple, net.pool(x, "Max", 3, 2)])
    for width in (128, 160, 160, 192):
        seven = column(row(conv(x, width, 1), width), 192)
        twice = row(column(row(column(conv(x, width, 1), width), width), width), 192)
        x = net.concat([conv(x, 192, 1), seven, twice, conv(mean(x), 192, 1)])
    seven = conv(column(row(conv(x, 192, 1), 192), 192), 192, 3, 2)
    x = net.concat([conv(conv(x, 192, 1), 320, 3, 2), seven, net.pool(x, "Max", 3, 2)])
    for _ in range(2):
        wide = cross(conv(conv(x, 448, 1), 384, 3, 1, 1))
        x = net.concat([conv(x, 320, 1), cross(conv(x, 384, 1)), wide, conv(mean(x), 192, 1)])
    _classify(net, net.flatten(net.global_pool(x)), net.channels(x))
