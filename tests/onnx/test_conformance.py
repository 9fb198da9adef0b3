# SPDX-License-Identifier: Apache-2.0
"""Every operator test of the onnx package passes or is refused for a reason that the compiler names."""

import collections
import re

import pytest

from reefd import _engine

from . import conformance

# Why a static test of a supported operator may be refused all the same.
ACCEPTED = re.compile(
    r"element type (BFLOAT16|STRING|\w*FLOAT[48]\w*|U?INT[24])|training mode|no tensor at all|has no elements|"
    r"depends on data|cannot be told before it runs|has no kernel"
)


@pytest.fixture(scope="module")
def report() -> conformance.Report:
    return conformance.collect()


def test_nothing_is_wrong(report: conformance.Report) -> None:
    assert report.failed == {}
    assert len(report.passed) >= 1520


def test_supported_operators_are_supported_in_every_form(report: conformance.Report) -> None:
    refused = {
        name: reason
        for name, (operators, reason) in report.unsupported.items()
        if operators in conformance.OPERATORS and not ACCEPTED.search(reason)
    }
    assert refused == {}


def test_every_instruction_set_passes() -> None:
    for isa in _engine.instruction_sets()[:-1]:  # the best one is the default
        assert conformance.collect(isa=isa, every=5).failed == {}


def test_refusals_name_an_operator_or_an_end(report: conformance.Report) -> None:
    kinds = collections.Counter(
        "named" if re.search(r"node '.+' \(\w|input '|output '|initializer '|no tensor", reason) else reason
        for _, reason in report.unsupported.values()
    )
    assert set(kinds) == {"named"}
