# SPDX-License-Identifier: Apache-2.0
"""reefctl reload: has the daemon read its manifests again, and waits for it. systemd calls it (ExecReload=)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from reefd import config
from reefd.cli_status import NoDaemon, ask
from reefd.yamlfile import FileError

_SECONDS = 900.0


def reload(
    *,
    runtime_dir: Annotated[Path | None, Parameter(help="the daemon's runtime directory")] = None,
    config_file: Annotated[Path | None, Parameter(name="--config", help="the daemon's configuration file")] = None,
) -> int:
    """Add, change and remove tasks as the manifests say now. Sessions of other tasks are not disturbed.

    With a bad manifest or model nothing changes: every problem is printed as file:line:column, and the exit code is 1.
    """
    try:
        settings = config.load(config_file, {"runtime_dir": str(runtime_dir.absolute()) if runtime_dir else None})
        found = msgspec.json.decode(ask(settings.control_socket, "reload", seconds=_SECONDS))
    except (FileError, NoDaemon, msgspec.MsgspecError) as error:
        print(error, file=sys.stderr)
        return 1
    if "error" in found:
        print(found["error"], "nothing was changed: the daemon serves what it served before", sep="\n", file=sys.stderr)
        return 1
    for what in ("added", "changed", "removed"):
        for task in found[what]:
            print(f"{what} {task}")
    print(f"{len(found['unchanged'])} unchanged")
    return 0
