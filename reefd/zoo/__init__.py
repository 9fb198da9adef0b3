# SPDX-License-Identifier: Apache-2.0
"""Well-known networks as ONNX files with seeded random weights, from descriptions of a few lines each.

For benchmarks and tests that need the real topologies and nothing else: no weights are downloaded, and the number of
parameters is the published one.
"""

from collections.abc import Callable

from onnx import ModelProto

from reefd.zoo import encoders, networks
from reefd.zoo.net import Net

# Name: how it is built, the shape of its input, and how many parameters it was published with.
NETWORKS: dict[str, tuple[Callable[[Net], None], int]] = {
    "alexnet": (networks.alexnet, 61_100_840),
    "vgg16": (networks.vgg16, 138_357_544),
    "vgg19": (networks.vgg19, 143_667_240),
    "resnet18": (networks.resnet18, 11_689_512),
    "resnet50": (networks.resnet50, 25_557_032),
    "resnet152": (networks.resnet152, 60_192_808),
    "densenet121": (networks.densenet121, 7_978_856),
    "densenet201": (networks.densenet201, 20_013_928),
    "inception_v2": (networks.inception_v2, 11_295_240),
    "inception_v3": (networks.inception_v3, 23_834_568),
    "mobilenet_v2": (networks.mobilenet_v2, 3_504_872),
    "squeezenet": (networks.squeezenet, 1_248_424),
    "bert_base": (encoders.bert_base, 109_482_240),
    "distilbert": (encoders.distilbert, 66_362_880),
}


def build(name: str, seed: int = 1, batch: int = 1) -> ModelProto:
    """A network of NETWORKS for so many pictures or sentences at once. The same seed gives the same weights."""
    describe, _ = NETWORKS[name]
    net = Net(name, seed, batch=batch)
    describe(net)
    return net.model()


def parameters(name: str) -> int:
    """How many parameters the network has that training would change, counted as it is built."""
    describe, _ = NETWORKS[name]
    net = Net(name, 1, weights=False)
    describe(net)
    return net.parameters
