# SPDX-License-Identifier: Apache-2.0
"""Writes the distinct convolutions of six torchvision networks: `python -m reefd.gpu.bench.shapes FILE`. No GPU."""

import json
import sys
from pathlib import Path

import torch
import torchvision

from .network import Network
from .torch_import import read_network

NETWORKS = ("resnet18", "resnet50", "vgg16", "densenet121", "inception_v3", "mobilenet_v2")


class _NoDevice:
    """Stands where a device would: addresses that nobody follows."""

    def allocate(self, size: int) -> int:
        return 4096

    def upload(self, array: object, pointer: int | None = None) -> int:
        return 4096


def main() -> None:
    found, seen = {}, set()
    for name in NETWORKS:
        extra = {"init_weights": False} if name == "inception_v3" else {}
        model = getattr(torchvision.models, name)(**extra).eval()
        size = 299 if name == "inception_v3" else 224
        network = Network(_NoDevice(), *read_network(model, torch.randn(1, 3, size, size)), "float32")  # type: ignore[arg-type]
        found[name] = [list(shape) for shape in network.conv_shapes() if shape not in seen]
        seen |= set(network.conv_shapes())
    Path(sys.argv[1]).write_text(
        "{\n"
        + ",\n".join(f' "{k}": [\n' + ",\n".join("  " + json.dumps(s) for s in v) + "\n ]" for k, v in found.items())
        + "\n}\n"
    )


if __name__ == "__main__":
    main()
