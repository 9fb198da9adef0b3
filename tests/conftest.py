# SPDX-License-Identifier: Apache-2.0
"""What holds for tests in every folder."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("as_root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="run as root: processes of several users take part"))
