# SPDX-License-Identifier: Apache-2.0
"""docs/safety.md is an argument that names its evidence: every file, test and command that it names exists."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/safety.md").read_text()
# ISO 26262-6:2018, Annex D: D.2.2 timing and execution, D.2.3 memory, D.2.4 exchange of information.
FAULTS = [
    "blocking of execution", "deadlock", "livelock", "wrong execution time", "wrong synchronisation",
    "corruption of content", "access to others' memory", "stack overflow",
    "repetition", "loss", "delay", "insertion", "masquerade", "wrong addressing", "wrong order", "corruption",
    "asymmetric information", "blocked access",
]  # fmt: skip


def rows() -> list[list[str]]:
    lines = [line.strip("| \n").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] not in ("fault", "---")]


def evidence() -> set[str]:
    cells = (cells[2] for cells in rows() if len(cells) == 3)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_fault_of_the_annex_has_a_row_with_mechanism_and_evidence():
    found = {cells[0]: cells for cells in rows() if len(cells) == 3}
    for fault in FAULTS:
        row = found.get(fault) or next((cells for name, cells in found.items() if name.startswith(fault)), None)
        assert row is not None, fault
        assert row[1].strip() and re.search(r"`[^`]+`", row[2]), fault


def test_everything_that_is_named_exists():
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    make = (ROOT / "Makefile").read_text()
    sources = [path for path in ROOT.glob("tests/**/*") if path.is_file()]
    engine = "".join(path.read_text() for path in (ROOT / "reefd/engine").glob("*.[ch]pp"))
    verbs = (ROOT / "reefd/bench/cli.py").read_text()
    names = evidence()
    assert len(names) > 30
    for name in names:
        if name.startswith("make "):
            exists = re.search(rf"^{name[5:]}:", make, re.M) is not None
        elif name.startswith("reefctl bench "):
            exists = f"def {name.split()[2]}(" in verbs
        elif "::" in name and not name.startswith("tests"):
            exists = f"{name.split('::')[1]}(" in engine
        elif name.startswith("test_") and not name.endswith((".py", ".c")):
            exists = re.search(rf"^(async )?def {name.replace('*', '.*')}\(", tests, re.M) is not None
        elif "/" in name or "." in name:
            exists = any(ROOT.glob(name)) or any(path.name == name for path in sources)
            exists |= (ROOT / "libreef/include" / name).exists()
        else:  # a scenario of the stress test
            exists = name in "".join(p.read_text() for p in (ROOT / "tests/device").iterdir() if p.is_file())
        assert exists, f"docs/safety.md names {name}, which does not exist"


def test_the_pages_that_it_sends_readers_to_are_there():
    tracked = subprocess.run(["git", "ls-files", "docs"], cwd=ROOT, capture_output=True, text=True).stdout
    for page in re.findall(r"\]\(([a-z_]+\.md)\)", PAGE):
        assert f"docs/{page}" in tracked.splitlines() or (ROOT / "docs" / page).exists()
