# SPDX-License-Identifier: Apache-2.0
"""The C library against the peer: one program for one behaviour (c/test_*.c), each in every configuration."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT

from .installed import Installed, sh

PROGRAMS = sorted(path.stem.removeprefix("test_") for path in (ROOT / "tests/libreef/c").glob("test_*.c"))
CONFIGURATIONS = {
    "wait": {},
    "spin": {"REEF_TEST_SPIN": "1"},
    "no_waitv": {"REEF_TEST_NO_WAITV": "1"},
}
ONE_CONFIGURATION = {"crc", "bad_region", "open_refused", "probe", "hold"}  # they never wait for a request


def cases() -> list[tuple[str, str]]:
    return [
        (program, configuration)
        for program in PROGRAMS
        for configuration in CONFIGURATIONS
        if configuration == "wait" or program not in ONE_CONFIGURATION
    ]


@pytest.mark.parametrize(("program", "configuration"), cases())
def test_program(
    program: str,
    configuration: str,
    compile_c: Callable[..., Path],
    installed: Installed,
    peer_program: Path,
    short_directory: Path,
) -> None:
    source = ROOT / "tests/libreef/c" / f"test_{program}.c"
    more: list[str] = []
    if program == "crc":
        more = [*map(str, (ROOT / "libreef" / "src").glob("*.c")), '-DREEF_VERSION="test"']
    executable = compile_c(source, "gcc", "gnu11", *more)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("REEF_")},
        **installed.environment,
        **CONFIGURATIONS[configuration],
        "PEER": str(peer_program),
        "REEF_TEST_DIR": str(short_directory),
    }
    done = subprocess.run([executable], env=environment, text=True, capture_output=True, timeout=300)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}"


HELLO = """
#include <reef.h>
#include <stdio.h>
int main(void) {
    struct reef_daemon_info info;
    int rc = reef_probe("/nonexistent/socket", 0, &info);
    printf("%s %d %s\\n", reef_version(), rc, reef_strerror(rc));
    return rc != -2;
}
"""


@pytest.mark.parametrize(
    ("compiler", "standard", "suffix"),
    [("gcc", "c11", "c"), ("gcc", "c17", "c"), ("g++", "c++11", "cpp"), ("g++", "c++20", "cpp")],
)
def test_headers_compile_strictly(
    compiler: str, standard: str, suffix: str, tmp_path: Path, installed: Installed, compile_c: Callable[..., Path]
) -> None:
    """A program of another project: pkg-config, a strict standard, every warning."""
    source = tmp_path / f"hello_{standard.replace('+', 'x')}.{suffix}"
    source.write_text(HELLO)
    program = compile_c(source, compiler, standard, "-pedantic", "-Wconversion", "-Wshadow")
    assert sh(program, **installed.environment).startswith("0.1.0 -2 ")


def test_only_the_api_is_exported(installed: Installed) -> None:
    """The symbol map: every function that reef.h declares, and nothing else."""
    library = next(installed.prefix.rglob("libreef.so.1"))
    symbols = {line.split()[-1].split("@")[0] for line in sh("nm", "-D", "--defined-only", library).splitlines()}
    header = (ROOT / "libreef" / "include" / "reef.h").read_text()
    declared = {
        word.split("(")[0].lstrip("*")
        for line in header.splitlines()
        if line.startswith("REEF_API")
        for word in line.split()
        if "(" in word and word.lstrip("*").startswith("reef_")
    }
    assert symbols - {"REEF_1.0"} == declared
    assert "libreef.so.1" in sh("objdump", "-p", library)
