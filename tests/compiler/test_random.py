# SPDX-License-Identifier: Apache-2.0
"""Random chains of operators compute what ONNX Runtime computes. `make test-random` tries many more."""

import numpy as np
from hypothesis import HealthCheck, given, reject, settings

from reefd import _engine

from .chains import Chain, chains
from .oracle import compiled, reference, run

QUICK = 60
TOLERANCE = 1e-4  # of the largest value
SMALL = 0.5  # values are near one: what is smaller everywhere is a difference of larger numbers, rounded
EXAMPLES = QUICK if settings.get_current_profile_name() == "default" else settings.default.max_examples


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == QUICK,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(chains())
def test_chain(chain: Chain) -> None:
    model = chain.model()
    if not model.graph.node:
        return
    feeds = {info.name: chain.feeds[info.name] for info in model.graph.input}
    try:
        wanted = reference(model, feeds)
    except Exception as error:  # ONNX Runtime's own: fusions that lose an input, forms that it lacks
        assert "onnxruntime" in type(error).__module__, error
        reject()
    result = compiled(model)
    for isa in _engine.instruction_sets():
        for name, array in run(result, feeds, isa).items():
            expected = wanted[name]
            assert array.shape == expected.shape and array.dtype == expected.dtype
            if array.dtype.kind != "f":
                assert np.array_equal(array, expected), (name, isa)
                continue
            worst = np.abs(array.astype(np.float64) - expected).max()
            assert worst <= TOLERANCE * max(np.abs(expected).max(), SMALL), (name, isa, worst)
