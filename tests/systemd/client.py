# SPDX-License-Identifier: Apache-2.0
"""A client inside the machine: client.py TASK VALUE [COUNT [LAST]]. Prints each request's status, and what sin gave.

COUNT requests with VALUE, then one with LAST. Keeps its session over restarts of the daemon, as libreef does by itself;
where that is refused it ends with the daemon's words.
"""

import sys

import numpy as np

import libreef

task, value, *rest = sys.argv[1:]
values = [float(value)] * (int(rest[0]) if rest else 1) + [float(last) for last in rest[1:]]
with libreef.Client(task, timeout=60) as client:
    for number in values:
        x = np.full((1, 1024), number, np.float32)
        try:
            y = client.infer(x=x, timeout=60)["y"]
            print("ok", bool(np.allclose(y, np.sin(x), atol=1e-6)), flush=True)
        except (libreef.AbiMismatch, libreef.SessionLost):
            raise
        except libreef.ReefError as error:
            print(type(error).__name__, error.code, flush=True)
