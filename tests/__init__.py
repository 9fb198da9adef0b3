# SPDX-License-Identifier: Apache-2.0
"""One package, so that test modules import their helpers by full names, whichever folders a run takes together."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
