# SPDX-License-Identifier: Apache-2.0
"""Commands of a C user, and libreef as he gets it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

WARNINGS = ["-O2", "-g", "-Wall", "-Wextra", "-Werror"]


def sh(*command: str | Path, **environment: str) -> str:
    """Runs a command that must succeed and returns what it printed."""
    done = subprocess.run(command, text=True, capture_output=True, env={**os.environ, **environment})
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """libreef installed under a prefix, as its users have it."""

    prefix: Path
    flags: list[str]
    environment: dict[str, str]
