# SPDX-License-Identifier: Apache-2.0
"""reefctl check: everything that would keep a task from being served, before the daemon meets it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from reefd import manifest
from reefd.yamlfile import FileError, Problem


def check(
    *manifests: Annotated[Path, Parameter(help="manifest files, or directories of them")],
    resource_dir: Annotated[
        tuple[Path, ...],
        Parameter(name=["--resource-dir", "-r"], negative="", help="where models are looked up (repeatable)"),
    ] = (),
    quiet: Annotated[bool, Parameter(help="print problems only", negative="")] = False,
) -> int:
    """Check manifests: print every problem as file:line:column: message. Exit code 1 when there is one.

    With --resource-dir, the resources that the manifests name are loaded too, as the daemon would do it.
    Without files, the daemon's own configuration, manifests and resources are checked.
    """
    directories = tuple(resource_dir)
    try:
        if not manifests:
            from reefd import config

            settings = config.load(None, {})
            manifests = (Path(settings.manifest_dir),)
            directories = directories or tuple(map(Path, settings.resource_dirs))
    except FileError as error:
        print(error, file=sys.stderr)
        return 1
    good, problems, warnings = manifest.load_files(_expand(manifests))
    if directories:
        from reefd import resources

        for path, entry in good.items():
            problems += resources.problems(path, entry, directories)
    for warning in warnings:
        print(_as_warning(warning), file=sys.stderr)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not quiet:
        blamed = {problem.file for problem in problems}
        for path, entry in good.items():
            if str(path) in blamed:
                continue
            models = ", ".join(entry.resources().values())
            print(f"{path}: task {entry.task} ({entry.task_class}), {models}: good")
    if not good and not problems:
        print("no manifests found", file=sys.stderr)
        return 1
    return 1 if problems else 0


def _expand(paths: tuple[Path, ...]) -> list[Path]:
    return [found for path in paths for found in (manifest.files_of(path) if path.is_dir() else [path])]


def _as_warning(problem: Problem) -> Problem:
    return Problem(problem.file, problem.line, problem.column, f"warning: {problem.message}")
