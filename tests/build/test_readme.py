# SPDX-License-Identifier: Apache-2.0
"""What README.md shows is true: its manifest is served, its clients get answers, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"README.md has {len(found)} blocks of {language}"
    return str(found[0])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A daemon that serves the README's manifest, for the user who runs the tests."""
    if not (ROOT / "build/resource/person_detector/model.json").exists():
        pytest.skip("needs the compiled networks: make resources")
    folder = tmp_path_factory.mktemp("readme")
    manifests = folder / "tasks.d"
    manifests.mkdir()
    manifest = _block("yaml")
    assert "users: [perception]" in manifest
    (manifests / "task.yaml").write_text(manifest.replace("users: [perception]", f"users: [{os.getuid()}]"))
    command = [sys.executable, "-m", "reefd", "--strict", "--instance", f"readme-{os.getpid()}", "--device", "cpu"]
    command += ["--runtime-dir", str(folder), "--manifest-dir", str(manifests)]
    with subprocess.Popen([*command, "--resource-dir", str(ROOT / "build/resource")]) as daemon:
        try:
            end = time.monotonic() + 60
            while not (folder / "reef.sock").exists():
                assert daemon.poll() is None, "reefd ended"
                assert time.monotonic() < end, "reefd opened no socket"
                time.sleep(0.05)
            yield os.environ | {"REEF_SOCKET": str(folder / "reef.sock")}
        finally:
            daemon.terminate()


def test_the_c_client_compiles_without_a_warning_and_gets_an_answer(
    environment: dict[str, str], tmp_path: Path
) -> None:
    library = ROOT / "build/c/libreef"
    if not (library / "libreef.so").exists():
        pytest.skip("needs libreef.so: make c")
    source, client = tmp_path / "client.c", tmp_path / "client"
    source.write_text(_block("c"))
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/libreef/include", f"-L{library}"]
    subprocess.run(["cc", *flags, source, f"-Wl,-rpath,{library}", "-lreef", "-o", client], check=True)
    answer = subprocess.run([client], env=environment, check=True, capture_output=True, text=True, timeout=60).stdout
    assert re.fullmatch(r"first box: -?\d+\.\d -?\d+\.\d\n", answer)


def test_the_python_client_gets_an_answer(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _block("python")],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("(1, 2254, 12) ")


@pytest.mark.parametrize("language", ["c", "python"])
def test_a_client_has_twenty_lines_or_so(language: str) -> None:
    assert len(_block(language).splitlines()) <= 22


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"
