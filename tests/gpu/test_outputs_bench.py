# SPDX-License-Identifier: Apache-2.0
"""The benchmark of large outputs runs over the stand-in drivers: both ways, right to the bit."""

import pytest

from reefd.bench import gpu_outputs

from .devices import GPUS, REAL, compile_cached, open_device, target


@pytest.mark.skipif(bool(REAL), reason="`python -m reefd.bench.gpu_outputs` is for cards: unset REEF_TEST_GPU")
@pytest.mark.parametrize("kind", GPUS)
def test_both_ways(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_outputs, "SIZES", {"a text": 20_480})
    rows = gpu_outputs.main(open_device(kind), target(kind), 5, compile_cached)
    said = [row["beside"] for row in rows]
    assert said == ["nothing", "outputs of a text by a kernel", "outputs of a text by pieces"]
    assert all(row["p50_us"] <= row["most_us"] for row in rows)
