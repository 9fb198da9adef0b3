# SPDX-License-Identifier: Apache-2.0
"""Round trips through the Python client, spinning.

python -m reefd.bench.ring_python TASK ROUNDS CPU    writes the times as uint32 nanoseconds
"""

from __future__ import annotations

import math
import os
import sys
import time

import numpy as np

from libreef import Client

WARM_UP = 200


def round_trips(task: str, rounds: int) -> np.ndarray:
    """Times of `rounds` requests on one loan, nanoseconds."""
    times = np.empty(rounds, dtype=np.uint32)
    with Client(task, timeout=10.0, spin=math.inf) as client, client.loan() as loan:
        words = loan.inputs["input"].array.view(np.uint64)
        for index in range(-WARM_UP, rounds):
            words[:] = index & 0xFFFF_FFFF
            start = time.perf_counter_ns()
            outputs = loan.infer()
            times[max(index, 0)] = time.perf_counter_ns() - start
            if outputs["output"].array.view(np.uint64)[0] != index & 0xFFFF_FFFF:
                raise RuntimeError("the echo is not what was sent")
    return times


if __name__ == "__main__":
    os.sched_setaffinity(0, [int(sys.argv[3])])
    sys.stdout.buffer.write(round_trips(sys.argv[1], int(sys.argv[2])).tobytes())
