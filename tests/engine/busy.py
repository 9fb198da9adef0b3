# SPDX-License-Identifier: Apache-2.0
"""Everything an engine does in its life, for test_allocations.py: prints its last snapshot as JSON."""

from __future__ import annotations

import json
import time

from libreef._reef import lib
from reefd import _engine
from tests import wait_until

from . import models
from .regions import open_session


def main() -> None:
    engine = _engine.Engine(device="cpu", workers=2)
    engine.start()
    best_effort, real_time = models.add_task(engine), models.add_task(engine, "rt")
    clients = [open_session(engine, task, i) for i, task in enumerate([best_effort, real_time] * 4)]
    round_ = 0

    def enough() -> bool:
        """On a busy machine what is to be preempted or cancelled may be done before."""
        tasks = {task["class"]: task for task in engine.snapshot()["tasks"]}
        turned = engine.snapshot()["turns"] > 1000
        return turned and round_ >= 30 and tasks["be"]["preempted"] > 0 and tasks["be"]["cancelled"] > 0

    end = time.monotonic() + 60
    while not enough() and time.monotonic() < end:
        for client in clients:
            for slot in range(4):
                client.submit(slot, model=(slot + round_) % 2, publish=False, flags=lib.REEF_SQE_LATEST * (slot == 3))
            client.publish()
        clients[1].announce()
        clients[0].cancel(0, clients[0].generations[0])
        for client in clients:
            client.wait(4)
        round_ += 1
    clients[2].submit(0, reserved=1)
    wait_until(lambda: clients[2].d_hot.verdict != 0)
    engine.detach(session_id=4, code=0)
    clients[6].submit(0, model=1, deadline_ns=1)
    assert clients[6].wait()[0].status != 0
    engine.set_spinning("always")
    clients[0].submit(0, model=1)
    clients[0].wait()
    engine.set_spinning("never")
    wait_until(lambda: "detached" in [event.kind for event in engine.poll_events()])
    snapshot = engine.snapshot()
    snapshot["event_rest"] = [event.kind for event in engine.poll_events()]
    engine.stop(grace_ns=0, keep_sessions=False)
    print(json.dumps(snapshot))


main()
