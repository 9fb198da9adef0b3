# SPDX-License-Identifier: Apache-2.0
"""Processes that compile, as many as there are processors.

Where the process that wants the code is interrupted they end with it, at once and without a word: Ctrl-C reaches a
whole process group, and only the one that was asked to do something should say that it did not.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context

from .compile import CompileError, compile_source


def compile_all(sources: Sequence[tuple[str, str]]) -> list[bytes]:
    """(source, target) -> code object, in as many processes as there are processors. CompileError."""
    workers = min(len(sources), len(os.sched_getaffinity(0)))
    if workers < 2:
        return [compile_source(source, target) for source, target in sources]
    others = set(active_children())
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as pool:
        try:
            # Processes are started here and inherit the mask: they could be interrupted before _begin().
            unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                codes = pool.map(compile_source, *zip(*sources, strict=True))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
            return list(codes)
        except BrokenProcessPool:
            raise CompileError("a process that compiled was killed: is there too little memory?") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(active_children()) - others:
                process.terminate()
            raise


def _begin() -> None:
    # As an exception it stops the compiler that was started, and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
