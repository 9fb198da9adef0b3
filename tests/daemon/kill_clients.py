# SPDX-License-Identifier: Apache-2.0
"""kill_clients.py SOCKET SEED COUNT TASK...: forks clients, some at a time, and kills each at a random instant.

A client opens a session on a random task, keeps every slot busy, and may die anywhere: in the handshake, while it
submits, while its request runs, while it waits.
"""

import os
import random
import signal
import sys
import time

from libreef._reef import ffi, lib

AT_ONCE = 4
LONGEST_LIFE = 0.04
SECOND_NS = 10**9


def client(socket: bytes, task: bytes) -> None:
    keep = [ffi.new("char[]", socket), ffi.new("char[]", task)]
    params = ffi.new("struct reef_open_params *", {"size": ffi.sizeof("struct reef_open_params")})
    params.socket, params.task, params.timeout_ns = *keep, SECOND_NS
    session = ffi.new("reef_session **")
    if lib.reef_open(params, session) != 0:
        return
    loans = [ffi.new("struct reef_loan *") for _ in range(lib.reef_header(session[0]).slots)]
    completion = ffi.new("struct reef_completion *")
    for loan in loans:
        lib.reef_loan(session[0], 0, SECOND_NS, loan)
        lib.reef_submit(session[0], loan, ffi.NULL)
    while lib.reef_wait(session[0], SECOND_NS, completion) == 0:
        loan = next(loan for loan in loans if loan.slot == completion.slot)
        lib.reef_seen(session[0])
        lib.reef_submit(session[0], loan, ffi.NULL)


def main() -> None:
    socket, seed, count, *tasks = sys.argv[1:]
    chance = random.Random(int(seed))
    alive: list[tuple[float, int]] = []
    for number in range(int(count) + AT_ONCE):
        if number < int(count):
            child = os.fork()
            if child == 0:
                client(socket.encode(), chance.choice(tasks).encode())
                os._exit(0)
            alive.append((time.monotonic() + chance.uniform(0, LONGEST_LIFE), child))
            if len(alive) < AT_ONCE:
                continue
        alive.sort()
        if alive:
            due, child = alive.pop(0)
            time.sleep(max(0.0, due - time.monotonic()))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        chance.random()


main()
