# SPDX-License-Identifier: Apache-2.0
"""A manifest's bounds, from the file to the log and `reefctl status`."""

import re

import numpy as np

import libreef
from reefd.cli_status import render

IRIS = "version: 1\ntask: iris\nclass: rt\nmodel: iris\nbounds: {{end_to_end: {bound}, budget: 0.001}}\n"


def test_a_broken_bound_is_logged_counted_and_shown(start):
    daemon = start({"iris.yaml": IRIS.format(bound="1us")})
    with libreef.Client("iris", socket=daemon.socket) as client:
        inputs = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in client.models[0].inputs}
        for _ in range(2):  # the budget forgives the first; a third could be a step of its own, if it came late
            client.infer(**inputs)
    daemon.wait_for_log("bounds:")
    line = next(line for line in daemon.log().splitlines() if "bounds:" in line)
    assert re.search(r"end_to_end took \d+\.\d+ ms, promised are 0\.001 ms \(broken 2 times\): step 1", line)
    assert "task=iris" in line and "bound_ns=1000" in line and re.search(r"latency_ns=\d{4,}", line)
    status = daemon.status()
    assert status["engine"]["ladder_down"] == 1
    assert status["tasks"][0]["broken"]["end_to_end"] == 2 and status["events"]["bounds"] >= 1
    if status["engine"]["ladder"] == 0:  # five calm seconds went by before it was asked
        status["engine"] |= {"ladder": 1, "ladder_name": "smaller best-effort windows"}
    shown = render(status)
    assert "broken bounds: smaller best-effort windows (step 1 of 3)" in shown
    assert "iris broke its bounds: end_to_end 2 times" in shown


def test_a_kept_bound_is_silent(start):
    daemon = start({"iris.yaml": IRIS.format(bound="1min")})
    with libreef.Client("iris", socket=daemon.socket) as client:
        inputs = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in client.models[0].inputs}
        client.infer(**inputs)
    status = daemon.status()
    assert status["engine"]["ladder"] == 0 and not any(status["tasks"][0]["broken"].values())
    assert "broke" not in render(status) and "bounds:" not in daemon.log()
