# SPDX-License-Identifier: Apache-2.0
"""docs/operators.md says what the compiler's table says."""

from reefd.compiler.document import document
from tests import ROOT


def test_operators_page_is_current() -> None:
    page = ROOT / "docs/operators.md"
    assert page.read_text() == document(), "write it again: python -m reefd.compiler.document > docs/operators.md"
