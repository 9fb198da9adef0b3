# SPDX-License-Identifier: Apache-2.0
"""docs/operators.md says what the compiler's table says."""

from pathlib import Path

from reefd.compiler.document import document


def test_operators_page_is_current() -> None:
    page = Path(__file__).resolve().parents[2] / "docs/operators.md"
    assert page.read_text() == document(), "write it again: python -m reefd.compiler.document > docs/operators.md"
