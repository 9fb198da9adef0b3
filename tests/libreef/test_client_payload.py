# SPDX-License-Identifier: Apache-2.0
"""Payload CRCs from Python: a bit that flips on the way to the client is PayloadDamaged for that request, and counted.

The way to the daemon: tests/daemon/test_daemon_payload.py, with a daemon that really computes them."""

import errno
from collections.abc import Callable

import numpy as np
import pytest

import libreef
from libreef import Client

IMAGE = np.arange(16, dtype=np.float32).reshape(8, 2) * 3 + 1


def test_whole_outputs_are_an_answer(waiting: Callable[..., Client]) -> None:
    client = waiting("--payload")
    for _ in range(2):
        assert np.array_equal(client.infer(image=IMAGE)["echo"], IMAGE)
    assert client.stats().damaged == 0


@pytest.mark.parametrize("how", ["infer", "submit"])
def test_outputs_that_changed_on_the_way(waiting: Callable[..., Client], how: str) -> None:
    client = waiting("--payload", "--damage-output")
    with client.loan() as loan:
        for damaged in (1, 2):  # the session goes on: the next request is told on its own
            loan.inputs["image"][:] = IMAGE
            with pytest.raises(libreef.PayloadDamaged) as caught:
                loan.infer() if how == "infer" else loan.submit().result()
            assert caught.value.code == -errno.EILSEQ
            words = f"slot {loan.slot}, model {client.models[0].name}: the outputs are not what the daemon computed"
            assert words in str(caught.value) and "infer again" in str(caught.value)
            assert client.stats().damaged == damaged
