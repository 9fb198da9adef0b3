# SPDX-License-Identifier: Apache-2.0
"""The Python client against the peer: threads, forked processes and signals."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

import libreef
from libreef import Client

from .peer import Peer


def test_one_thread_at_a_time(waiting: Callable[..., Client], peer: Peer) -> None:
    client = waiting("--hold")
    loan, other = client.loan(), client.loan()
    future = loan.submit()
    waiter = threading.Thread(target=future.result)
    waiter.start()
    end = time.monotonic() + 60
    while not client._busy:
        assert time.monotonic() < end
    with pytest.raises(libreef.WrongThread):
        while True:  # the waiter leaves C for a moment now and then
            client.poll()
    peer.signal(signal.SIGUSR1)
    waiter.join(60)
    assert not waiter.is_alive()
    client._busy = True
    for use in (other.infer, other.submit, other.release, client.loan, client.poll, client.close, client.announce):
        with pytest.raises(libreef.WrongThread):
            use()
    client._busy = False
    other.release()


FORKED = """
import os, sys
import numpy as np
import libreef
client = libreef.Client("test", socket=sys.argv[1])
loan = client.loan()
loan.inputs["image"][:] = 1
loan.infer()
child = os.fork()
if child == 0:
    for use in (lambda: client.loan(), lambda: loan.infer(), lambda: client.infer(image=np.zeros((8, 2)))):
        try:
            use()
        except libreef.ForkedProcess:
            continue
        os._exit(1)
    client.close()
    del loan, client
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
loan.infer()
print("good")
"""


def test_fork(peer: Peer) -> None:
    peer.start()
    done = subprocess.run([sys.executable, "-c", FORKED, str(peer.socket)], text=True, capture_output=True, timeout=120)
    assert done.stdout == "good\n", done.stderr


INTERRUPTED = """
import os, signal, sys, threading
import libreef
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell leaves it ignored
client = libreef.Client("test", socket=sys.argv[1])
loan = client.loan()
try:
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    loan.infer()
except KeyboardInterrupt:
    print("good")
"""


def test_ctrl_c_ends_a_wait(peer: Peer) -> None:
    peer.start("--hold")
    command = [sys.executable, "-c", INTERRUPTED, str(peer.socket)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120)
    assert done.stdout == "good\n", done.stderr
