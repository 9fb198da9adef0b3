# SPDX-License-Identifier: Apache-2.0
"""hold_thread.py TID: stops one thread by ptrace, prints "held", and lets go when its standard input is closed.

A thread that is killed meanwhile is reaped: until its tracer does that, its process cannot go.
"""

import ctypes
import os
import select
import sys

SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    thread = int(sys.argv[1])
    for request in (SEIZE, INTERRUPT):
        if libc.ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
    os.waitpid(thread, WALL)
    print("held", flush=True)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        reaped, status = os.waitpid(thread, os.WNOHANG | WALL)
        if reaped == thread and (os.WIFSIGNALED(status) or os.WIFEXITED(status)):
            return
    libc.ptrace(DETACH, thread, None, None)


main()
