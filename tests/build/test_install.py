# SPDX-License-Identifier: Apache-2.0
"""`make install`: what a C user gets, and that a program builds with nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests import ROOT

PREFIX = "/opt/reef test"  # a space, as in some people's home directories


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder under which everything was installed."""
    destination = tmp_path_factory.mktemp("install")
    subprocess.run(
        ["make", "-s", "install", f"DESTDIR={destination}", f"PREFIX={PREFIX}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return destination / PREFIX.lstrip("/")


def test_library_headers_and_pkg_config_file_are_there(installed: Path) -> None:
    names = {path.name for path in installed.rglob("*") if not path.is_dir()}
    assert names == {"libreef.so", "libreef.so.1", "libreef.so.1.0.0", "reef.h", "reef_abi.h", "reef.pc"}
    dynamic = subprocess.run(
        ["readelf", "-d", next(installed.rglob("libreef.so"))], check=True, capture_output=True, text=True
    ).stdout
    assert re.search(r"SONAME.*\[libreef\.so\.1\]", dynamic)


def test_only_the_api_is_exported(installed: Path) -> None:
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", next(installed.rglob("libreef.so"))], check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[2].partition("@")[0] for line in symbols.splitlines() if line.split()[1] == "T"}
    header = (ROOT / "libreef/include/reef.h").read_text()
    assert names == set(re.findall(r"^REEF_API [^;]*?\b(reef_\w+)\(", header, re.MULTILINE))


@pytest.mark.parametrize(("compiler", "suffix"), [("cc", "c"), ("c++", "cpp")])
def test_a_program_builds_against_it(installed: Path, tmp_path: Path, compiler: str, suffix: str) -> None:
    source = tmp_path / f"client.{suffix}"
    source.write_text("#include <reef.h>\n#include <stdio.h>\nint main(void) { puts(reef_version()); return 0; }\n")
    library = next(installed.rglob("libreef.so")).parent
    flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-std=" + ("c11" if suffix == "c" else "c++17")]
    client = tmp_path / "client"
    places = [f"-I{installed / 'include'}", f"-L{library}", f"-Wl,-rpath,{library}"]
    subprocess.run([compiler, *flags, source, *places, "-lreef", "-o", client], check=True)
    version = subprocess.run([client], check=True, capture_output=True, text=True).stdout.strip()
    package = (library / "pkgconfig/reef.pc").read_text()
    assert f"Version: {version}" in package
