# SPDX-License-Identifier: Apache-2.0
"""One machine for all tests of the folder, with the package installed and the demo's tasks served."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.sin_model import compile_sin

from .machine import Machine, package

SIN = "version: 1\ntask: {name}\nclass: {task_class}\nmodel: sin\nslots: 2\n"


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine without the package."""
    if os.geteuid() != 0 or not Path("/lib/systemd/systemd").exists():
        pytest.skip("run as root where systemd is installed: make test-systemd")
    folder = tmp_path_factory.mktemp("machine")
    machine = Machine(folder, tmp_path_factory.mktemp("log") / "boot")
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def machine(bare: Machine) -> Machine:
    """With the package, the demo's tasks, and two tasks whose inputs can be made to hang or crash the kernel."""
    bare.run("dpkg", "-i", package(), check=True)
    for manifest in (ROOT / "libreef/examples/manifests").glob("*.yaml"):
        shutil.copy(manifest, bare.path("/etc/reefd/tasks.d"))
    shutil.copytree(ROOT / "build/resource", bare.path("/usr/share/reefd/resource"), dirs_exist_ok=True)
    compile_sin(bare.path("/usr/share/reefd/resource/sin"))
    for name, task_class in (("sin-rt", "rt"), ("sin-be", "be")):
        text = SIN.format(name=name, task_class=task_class)
        bare.path(f"/etc/reefd/tasks.d/{name}.yaml").write_text(text)
    echo = "version: 1\ntask: echo\nclass: rt\nmodel: echo:64\nallow: {users: [nobody]}\n"
    bare.path("/etc/reefd/tasks.d/echo.yaml").write_text(echo)
    faults = ROOT / "tests/systemd/faults.c"
    library = bare.path("/usr/lib/reefd/faults.so")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", faults, "-o", library, "-ldl"], check=True)
    bare.path("/etc/systemd/system/reefd.service.d").mkdir(parents=True)
    drop_in = "[Service]\nEnvironment=LD_PRELOAD=/usr/lib/reefd/faults.so\n"
    bare.path("/etc/systemd/system/reefd.service.d/test.conf").write_text(drop_in)
    bare.systemctl("daemon-reload")
    bare.systemctl("restart", "reefd")
    return bare
