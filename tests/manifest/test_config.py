# SPDX-License-Identifier: Apache-2.0
"""reefd.yaml: defaults, file and command line, and runtime directories that others could use against the daemon."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from reefd import config
from reefd.config import Config, ConfigError
from tests import ROOT

SHIPPED = ROOT / "systemd/reefd.yaml"


def test_the_shipped_file_has_every_key_commented_at_its_default(tmp_path: Path):
    assert SHIPPED.read_text() == config.render(config.defaults(0), commented=True)
    assert config.load(SHIPPED, {}) == config.defaults()


def test_what_is_printed_can_be_read_again(tmp_path: Path):
    wanted = config.load(None, {"instance": "no", "grace": "1500us", "strict": True, "resource_dirs": ["/x", "/y z"]})
    file = tmp_path / "reefd.yaml"
    file.write_text(config.render(wanted))
    assert config.load(file, {}) == wanted


def test_the_command_line_wins_over_the_file(tmp_path: Path):
    file = tmp_path / "reefd.yaml"
    file.write_text("instance: from-file\nworkers: 3\n")
    found = config.load(file, {"instance": "from-line", "workers": None})
    assert (found.instance, found.workers) == ("from-line", 3)


def test_all_mistakes_at_once(tmp_path: Path):
    file = tmp_path / "reefd.yaml"
    file.write_text("instance: a.b\nworkr: 2\ngrace: 5\nrealtime: on\nresource_dirs: [here]\n")
    with pytest.raises(ConfigError) as caught:
        config.load(file, {})
    places = [str(problem).removeprefix(f"{file}:").split(": ")[0] for problem in caught.value.problems]
    assert places == ["1:11", "2:1", "3:8", "4:11", "5:17"]
    assert "did you mean workers?" in str(caught.value)
    with pytest.raises(ConfigError, match="--instance"):
        config.load(None, {"instance": "../x"})
    with pytest.raises(ConfigError, match="No such file"):
        config.load(tmp_path / "missing.yaml", {})


def test_every_key_is_described():
    assert list(config.DESCRIPTIONS) == [field.name for field in msgspec.structs.fields(Config)]


def test_users_and_the_system_do_not_meet():
    system, user = config.defaults(0), config.defaults(54321, {"HOME": "/home/u"})
    assert system.instance != user.instance and system.runtime_dir != user.runtime_dir
    assert user.runtime_dir == "/tmp/reefd-54321"
    assert config.defaults(54321, {"XDG_RUNTIME_DIR": "/run/user/54321"}).runtime_dir == "/run/user/54321/reefd"
    assert config.defaults(54321, {"XDG_RUNTIME_DIR": "relative"}).runtime_dir == "/tmp/reefd-54321"


def test_a_runtime_directory_that_others_can_write_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    settings = config.load(None, {"runtime_dir": str(path)})
    config.prepare_runtime_dir(settings)
    assert path.stat().st_mode & 0o777 == 0o755 and settings.state_dir.stat().st_mode & 0o777 == 0o700
    path.chmod(0o775)
    with pytest.raises(ConfigError, match="written by others"):
        config.prepare_runtime_dir(settings)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match="not a directory"):
        config.prepare_runtime_dir(config.load(None, {"runtime_dir": str(tmp_path / "link")}))


@pytest.mark.skipif(os.geteuid() != 0, reason="run as root: it makes a directory of another user")
def test_a_runtime_directory_of_another_user_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    path.mkdir(mode=0o755)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to uid 65534"):
        config.prepare_runtime_dir(config.load(None, {"runtime_dir": str(path)}))


def test_print_config(tmp_path: Path):
    command = [sys.executable, "-m", "reefd", "--print-config", "--instance", "x", "--runtime-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "instance: x\n" in done.stdout and f"runtime_dir: {tmp_path}\n" in done.stdout
