# SPDX-License-Identifier: Apache-2.0
"""The one exception for everything that can be wrong with a resource folder."""

from pathlib import Path


class ResourceError(Exception):
    """A resource that cannot be read or written: `path` is the file to blame, `reason` what is wrong with it."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason
