# SPDX-License-Identifier: Apache-2.0
"""What a user is told when a model cannot be compiled: everything at once, each with its place and a way out."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that stands in the way. Empty fields do not apply."""

    reason: str
    node: str = ""
    operator: str = ""
    attribute: str = ""
    nearest: str = ""  # the nearest form that is supported

    def __str__(self) -> str:
        place = f"node {self.node!r} ({self.operator})" if self.node or self.operator else ""
        if self.attribute:
            place += f", attribute {self.attribute!r}"
        text = f"{place}: {self.reason}" if place else self.reason
        return f"{text}; supported: {self.nearest}" if self.nearest else text


class CompileError(Exception):
    """A model that cannot be compiled. `problems` holds all that was found, not only the first."""

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = list(problems)
        super().__init__("\n".join(f"{path}: {problem}" for problem in self.problems))


class Unsupported(Exception):
    """Raised while one node is translated; becomes a Problem that names the node."""

    def __init__(self, reason: str, *, attribute: str = "", nearest: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.attribute = attribute
        self.nearest = nearest
