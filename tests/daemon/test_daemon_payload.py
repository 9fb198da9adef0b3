# SPDX-License-Identifier: Apache-2.0
"""`payload_crc: true` between a Python client and the real daemon. A stopped daemon makes sure that the inputs change
after they were submitted and before they are taken."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import numpy as np
import pytest

import libreef
from libreef._reef import ffi, lib

MANIFEST = "version: 1\ntask: echo\nclass: {task_class}\nmodel: echo:64\nslots: 2\npayload_crc: true\n"
STOPPED = "T"  # the state of a thread in /proc
PICTURE = np.arange(64, dtype=np.uint8)


def states(pid: int) -> set[str]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads}


@pytest.mark.parametrize("task_class", ["rt", "be"])
def test_inputs_that_changed_on_the_way(start, task_class):
    daemon = start({"echo.yaml": MANIFEST.format(task_class=task_class)})
    with libreef.Client("echo", socket=daemon.socket) as client, client.loan() as loan, client.loan() as other:
        for tensor in (loan.inputs["input"], other.inputs["input"]):
            tensor[:] = PICTURE
        daemon.process.send_signal(signal.SIGSTOP)
        daemon.wait_for(lambda: states(daemon.process.pid) == {STOPPED})
        damaged, whole = loan.submit(), other.submit()
        # Tensors of a request in flight refuse to be written, so past them.
        memory = ffi.cast("uint8_t *", lib.reef_input(client._session, loan._c, 0))
        memory[63] ^= 0x40
        daemon.process.send_signal(signal.SIGCONT)
        with pytest.raises(libreef.PayloadDamaged) as caught:
            damaged.result()
        assert caught.value.code == -errno.EILSEQ
        words = str(caught.value)
        assert words.startswith(f"echo, slot {loan.slot}, model echo:64: the inputs are not what was submitted"), words
        assert "infer again" in words and "in flight" in words
        assert np.array_equal(whole.result()["output"], np.r_[PICTURE[:8], PICTURE[-8:]])  # its neighbour is answered
        assert client.stats().damaged == 1
        status = daemon.status()
        assert [task["damaged"] for task in status["tasks"]] == [1] and status["events"]["damaged"] == 1
        loan.inputs["input"][:] = PICTURE
        assert np.array_equal(loan.infer()["output"], np.r_[PICTURE[:8], PICTURE[-8:]])
    log = daemon.wait_for_log("the inputs have CRC")
    assert "session" in log and "EILSEQ" in log
    assert daemon.stop() == 0 and daemon.shm() == []
