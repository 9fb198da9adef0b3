# SPDX-License-Identifier: Apache-2.0
"""The units and what belongs to them, without starting anything: systemd's own checks, and names that must agree."""

import re
import shutil
import subprocess

import pytest

from reefd import journal
from tests import ROOT

SYSTEMD = ROOT / "systemd"
EXPOSURE = 3.0
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze: apt-get install systemd"
)


@needs_systemd
def test_systemd_finds_nothing_to_say_about_the_units(tmp_path):
    for name in ("reefd.service", "reefd.socket"):
        # The programs and pages are where the package puts them; `make test-systemd` verifies them there.
        text = re.sub("/usr/bin/(reefd|reefctl) ", "/bin/true ", (SYSTEMD / name).read_text())
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / "reefd.service", tmp_path / "reefd.socket"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@needs_systemd
def test_exposure_is_low():
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", SYSTEMD / "reefd.service"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert float(re.search(r"Overall exposure level for reefd.service: ([\d.]+)", result.stdout)[1]) <= EXPOSURE


def test_every_message_id_is_explained_and_every_explanation_used():
    catalog = (SYSTEMD / "reefd.catalog").read_text()
    entries = re.findall(r"^-- ([0-9a-f]{32})\nSubject: \S.*\nDefined-By: reefd\n.*\n\n\S", catalog, re.MULTILINE)
    assert sorted(entries) == sorted(journal.MESSAGE_IDS.values())
    assert len(set(entries)) == len(entries)


@pytest.mark.skipif(not shutil.which("journalctl"), reason="needs journalctl: apt-get install systemd")
def test_the_catalog_compiles(tmp_path):
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    shutil.copy(SYSTEMD / "reefd.catalog", folder)
    result = subprocess.run(["journalctl", "--update-catalog", f"--root={tmp_path}"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "var/lib/systemd/catalog/database").exists()


def test_every_alarm_of_the_operators_page_has_an_id():
    page = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|.*\|$", page.partition("## Alarms")[2].partition("###")[0], re.MULTILINE)
    alarms = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert len(alarms) > 10 and alarms <= set(journal.MESSAGE_IDS)


def test_the_events_with_an_id_are_those_that_the_daemon_logs():
    sources = "".join(path.read_text() for path in (SYSTEMD.parent / "reefd").glob("*.py"))
    engine = (SYSTEMD.parent / "reefd/engine/events.cpp").read_text()
    for event in journal.MESSAGE_IDS:
        known = sources.count(f'"{event}"') >= 2  # in journal.py and where it is logged
        assert known or f'"{event.replace("-", "_")}"' in engine, event
