# SPDX-License-Identifier: Apache-2.0
"""Child processes of a benchmark. They end with it, however it ends, and Ctrl-C reaches only the benchmark, which then
ends them in its own order."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def start(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    parting: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """As subprocess.Popen. `parting` is sent to it when the calling thread, the main one, ends before it."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=stdin,
        stdout=stdout,
        process_group=0,
        preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, parting),
    )


def output(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """The exit code of a child and what it wrote to its standard output."""
    with start(command, environment=environment, stdout=subprocess.PIPE) as process:
        try:
            out, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
        return process.returncode, out
