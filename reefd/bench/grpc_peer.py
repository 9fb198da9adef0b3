# SPDX-License-Identifier: Apache-2.0
"""Unary gRPC calls over a unix socket, Python on both sides: what a request costs on the usual way to a model server.

python -m reefd.bench.grpc_peer SOCKET        serves until its standard input closes
"""

from __future__ import annotations

import os
import sys
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np

METHOD = "/reef.bench/Echo"
WARM_UP = 50


def _same(message: bytes) -> bytes:
    return message


def serve(socket: Path) -> None:
    """Echoes 64-byte messages until standard input closes."""
    handler = grpc.method_handlers_generic_handler(
        "reef.bench", {"Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request)}
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), handlers=[handler])
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(grace=None)


def call(socket: Path, rounds: int) -> np.ndarray:
    """Times of `rounds` calls, nanoseconds."""
    times = np.empty(rounds, dtype=np.uint32)
    message = bytes(64)
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        echo = channel.unary_unary(METHOD, request_serializer=_same, response_deserializer=_same)
        for index in range(-WARM_UP, rounds):
            start = time.perf_counter_ns()
            answer = echo(message)
            times[max(index, 0)] = time.perf_counter_ns() - start
            if answer != message:
                raise RuntimeError("the gRPC peer answered something else than it was sent")
    return times


if __name__ == "__main__":
    os.sched_setaffinity(0, [int(sys.argv[3])])
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        sys.stdout.buffer.write(call(Path(sys.argv[2]), int(sys.argv[4])).tobytes())
