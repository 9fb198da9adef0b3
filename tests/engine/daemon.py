# SPDX-License-Identifier: Apache-2.0
"""A process that holds an engine and nothing else, to be killed: serves one session whose descriptors it inherits.

Arguments: JSON with c_fd, d_fd, doorbell, socket, session_id, epoch, adopt. Prints "ready" and waits for the end of its
standard input.
"""

from __future__ import annotations

import json
import sys

from reefd import _engine

from . import models


def main() -> None:
    options = json.loads(sys.argv[1])
    engine = _engine.Engine(device="cpu", workers=1, realtime=False)
    engine.start()
    task = models.add_task(engine)
    engine.attach(
        task=task,
        session_id=options["session_id"],
        daemon_epoch=options["epoch"],
        c_fd=options["c_fd"],
        d_fd=options["d_fd"],
        doorbell_fd=options["doorbell"],
        socket_fd=options["socket"],
        adopt=options["adopt"],
    )
    print("ready", flush=True)
    sys.stdin.read()
    print(json.dumps(engine.stop(grace_ns=0, keep_sessions=True)), flush=True)


main()
