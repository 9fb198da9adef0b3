# SPDX-License-Identifier: Apache-2.0
"""The numbers that verbs of reefctl take. One outside its range is an argument that makes no sense: exit code 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter


def _between(least: float, most: float, expected: str, *, without_least: bool = False) -> Callable[..., None]:
    def check(_: object, value: float | None) -> None:
        if value is not None and (not least <= value <= most or (without_least and value == least)):
            raise ValueError(f"expected {expected}")

    return check


Workers = Annotated[int, Parameter(validator=_between(0, 1024, "a whole number from 0 to 1024"))]
Threads = Annotated[int, Parameter(validator=_between(1, 1024, "a whole number from 1 to 1024"))]
InFlight = Annotated[int, Parameter(validator=_between(1, 1024, "a whole number from 1 to 1024"))]
Count = Annotated[int, Parameter(validator=_between(1, math.inf, "a whole number above 0"))]
CountOrZero = Annotated[int, Parameter(validator=_between(0, math.inf, "a whole number, 0 or more"))]
Seed = Annotated[int, Parameter(validator=_between(0, 2**64 - 1, "a whole number from 0 to 2^64 - 1"))]
Share = Annotated[float, Parameter(validator=_between(0, 1, "a number from 0 to 1"))]
# Of rounds: 100 times as many as usual take a day.
Scale = Annotated[float, Parameter(validator=_between(0, 100, "a number above 0, at most 100", without_least=True))]
Rate = Annotated[float, Parameter(validator=_between(0, 1e6, "a number above 0, at most 1e6", without_least=True))]
_DAYS = 1e6
Seconds = Annotated[float, Parameter(validator=_between(0, _DAYS, "seconds above 0", without_least=True))]
SecondsOrZero = Annotated[float, Parameter(validator=_between(0, _DAYS, "seconds, 0 or more"))]
