# SPDX-License-Identifier: Apache-2.0
"""Processes that compile, as many as there are processors.

Where the process that wants the code is interrupted they end with it, at once and without a word: Ctrl-C reaches a
whole process group, and only the one that was asked to do something should say that it did not.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from types import TracebackType

from .compile import CompileError, compile_source


class Compilers:
    """`with Compilers() as compile_sources:` - the processes, started when they are needed, kept until the end."""

    def __init__(self, most: int = sys.maxsize) -> None:
        workers = min(most, len(os.sched_getaffinity(0)))
        self._others = set(active_children())
        # A process that is stopped may leave files: all lie here.
        self._folder = tempfile.TemporaryDirectory(prefix="reef-compile-", ignore_cleanup_errors=True)
        self._pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(self._folder.name,)
        )

    def __call__(self, sources: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        """(source, target) -> code object, in order, each as soon as it and those before it are there. CompileError."""
        # Processes are started here and inherit the mask: they could be interrupted before _begin().
        unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            codes = self._pool.map(compile_source, *zip(*sources, strict=True)) if sources else iter(())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
        try:
            yield from codes
        except BrokenProcessPool:
            raise CompileError("a process that compiled was killed: is there too little memory?") from None

    def __enter__(self) -> Compilers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in set(active_children()) - self._others:
                process.terminate()
        self._pool.shutdown()
        self._folder.cleanup()


def compile_all(sources: Sequence[tuple[str, str]]) -> list[bytes]:
    """(source, target) -> code object, in as many processes as there are processors. CompileError."""
    if min(len(sources), len(os.sched_getaffinity(0))) < 2:
        return [compile_source(source, target) for source, target in sources]
    with Compilers(len(sources)) as compile_sources:
        return list(compile_sources(sources))


def _begin(folder: str) -> None:
    tempfile.tempdir = folder
    # As an exception it stops the compiler that was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
