# SPDX-License-Identifier: Apache-2.0
"""Processes that compile, as many as there are processors: each reads sources and writes code objects.

    python -m reefd.gpu.compilers    one of them

Each has a process group of its own, so Ctrl-C reaches only the command that wants the code; that kills them, with the
compilers that they started. They share nothing with each other or with it but a pipe each: one that is killed leaves no
lock behind.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType

from .compile import CompileError, compile_source


class Compilers:
    """`with Compilers() as compile_sources:` - the processes, started when they are needed, kept until the end."""

    def __init__(self, most: int = sys.maxsize) -> None:
        self._threads = ThreadPoolExecutor(min(most, len(os.sched_getaffinity(0))))
        self._folder = tempfile.TemporaryDirectory(prefix="reef-compile-", ignore_cleanup_errors=True)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._closed = False

    def __call__(self, sources: Sequence[tuple[str, str]]) -> Iterator[bytes]:
        """(source, target) -> code object, in order, each as soon as it and those before it are there. CompileError."""
        return self._threads.map(self._compile, sources)

    def _compile(self, source: tuple[str, str]) -> bytes:
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            process = self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            pickle.dump(source, process.stdin)
            process.stdin.flush()
            answer: bytes | CompileError = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise CompileError("a process that compiled was killed: is there too little memory?") from None
        self._idle.put(process)
        if isinstance(answer, CompileError):
            raise answer
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise CompileError("interrupted")
            process = subprocess.Popen(
                [sys.executable, "-m", "reefd.gpu.compilers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"TMPDIR": self._folder.name},
                process_group=0,
            )
            self._processes.append(process)
        return process

    def __enter__(self) -> Compilers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
        for process in self._processes:
            with suppress(ProcessLookupError):  # ended by itself, or by the signal that ends the command
                os.killpg(process.pid, signal.SIGKILL)  # not waited for yet: the number is still its own
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was written to one that is gone
                        pipe.close()
        self._folder.cleanup()


def compile_all(sources: Sequence[tuple[str, str]]) -> list[bytes]:
    """(source, target) -> code object, in as many processes as there are processors. CompileError."""
    if min(len(sources), len(os.sched_getaffinity(0))) < 2:
        return [compile_source(source, target) for source, target in sources]
    with Compilers(len(sources)) as compile_sources:
        return list(compile_sources(sources))


def _serve() -> None:
    """Until the other side is gone. Nothing but answers goes to where they are read."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            source, target = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: bytes | CompileError
        try:
            answer = compile_source(source, target)
        except CompileError as error:
            answer = CompileError(*error.args)
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    _serve()
