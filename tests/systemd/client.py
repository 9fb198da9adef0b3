# SPDX-License-Identifier: Apache-2.0
"""A client inside the machine: client.py TASK VALUE [COUNT]. Prints the status of each request, and what sin gave.

Keeps its session over restarts of the daemon, as libreef does by itself.
"""

import sys

import numpy as np

import libreef

task, value, *rest = sys.argv[1:]
with libreef.Client(task, timeout=60) as client:
    for _ in range(int(rest[0]) if rest else 1):
        x = np.full((1, 1024), float(value), np.float32)
        try:
            y = client.infer(x=x, timeout=60)["y"]
            print("ok", bool(np.allclose(y, np.sin(x), atol=1e-6)), flush=True)
        except libreef.ReefError as error:
            print(type(error).__name__, error.code, flush=True)
