# SPDX-License-Identifier: Apache-2.0
"""The oracle lies beside the compiler's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "compiler"))
