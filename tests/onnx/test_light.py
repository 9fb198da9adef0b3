# SPDX-License-Identifier: Apache-2.0
"""Real topologies with random weights agree with ONNX Runtime. `make test-onnx` compares the large ones too."""

import pytest

from . import light


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v2"])
def test_network(name: str) -> None:
    assert light.compare(name) <= 1e-4
