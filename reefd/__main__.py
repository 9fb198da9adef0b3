# SPDX-License-Identifier: Apache-2.0
"""reefd: the command line of the daemon."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reefd import __version__, config, journal, notify
from reefd.config import ConfigError
from reefd.log import Log


def main(arguments: list[str] | None = None) -> int:
    """Runs the daemon in the foreground until it is stopped. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="reefd", description="The daemon that owns the device.", allow_abbrev=False)
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"configuration (default: {config.default_file()})")
    parser.add_argument("--device", metavar="auto|cpu|cuda|hip", help="the device that models run on")
    parser.add_argument("--instance", metavar="NAME", help="name of this daemon among others on the same machine")
    parser.add_argument("--runtime-dir", metavar="DIR", help="where the sockets are")
    parser.add_argument("--manifest-dir", metavar="DIR", help="where the manifests are")
    parser.add_argument("--resource-dir", metavar="DIR", action="append", help="where models are (repeatable)")
    parser.add_argument("--workers", type=int, metavar="N", help="compute units of the CPU device")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    parser.add_argument("--strict", action="store_true", default=None, help="refuse to start with a bad manifest")
    parser.add_argument("--print-config", action="store_true", help="print the effective configuration and exit")
    parser.add_argument("--version", action="version", version=f"reefd {__version__}")
    given = vars(parser.parse_args(arguments))
    file, print_config = given.pop("config"), given.pop("print_config")
    directories = given.pop("resource_dir")
    for key in ("runtime_dir", "manifest_dir"):
        given[key] = given[key] and str(Path(given[key]).absolute())
    given["resource_dirs"] = directories and [str(Path(path).absolute()) for path in directories]
    try:
        settings = config.load(file, given)
    except ConfigError as error:
        if journal.is_stderr():
            Log().error("start", str(error))
        else:
            print(error, file=sys.stderr)
        notify.hold_back()
        return 1
    if print_config:
        print(config.render(settings), end="")
        return 0
    from reefd import daemon

    code = daemon.run(settings)
    if code == daemon.EXIT_FAILED:
        notify.hold_back()
    return code


if __name__ == "__main__":
    sys.exit(main())
