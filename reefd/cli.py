# SPDX-License-Identifier: Apache-2.0
"""reefctl: the frame. Each verb lives in a module of its own, imported when it is used, so that `status` stays quick.

Exit codes: 0 good; 1 a problem, printed to stderr; 2 an argument that makes no sense; 130 and 143 interrupted.
"""

from __future__ import annotations

import signal
import sys

from cyclopts import App

from reefd import __version__

# Verb -> (where its function is, what it does).
VERBS = {
    "check": ("reefd.cli_check:check", "Check manifests and the resources they name."),
    "verify": ("reefd.cli_verify:verify", "Prove that a resource can be preempted anywhere and resumed exactly."),
    "status": ("reefd.cli_status:status", "Show what the daemon is doing."),
    "reload": ("reefd.cli_reload:reload", "Have the daemon read its manifests again."),
    "compile": ("reefd.cli_compile:compile_model", "Compile an ONNX network into a resource folder."),
    "inspect": ("reefd.cli_inspect:inspect", "Show a resource's kernels: FLOPs, bytes, time, memory."),
    "profile": ("reefd.cli_profile:profile", "Measure a resource's kernels here, for bounds and padding."),
    "run": ("reefd.cli_run:run", "Run a resource, once or timed."),
    "devices": ("reefd.cli_devices:devices", "List the devices of this machine and what they can do."),
    "zoo": ("reefd.zoo.cli:zoo", "Write networks of the literature as ONNX files."),
    "bench": ("reefd.bench.cli:app", "Measure what reefd costs and what it protects."),
}

app = App(name="reefctl", version=__version__, help="Checks, compiles, measures and watches what reefd runs.")
for verb, (place, purpose) in VERBS.items():
    app.command(place, name=verb, help=purpose)


def main() -> None:
    """The entry point: runs one verb and exits with its code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is cleaned up
    try:
        code = app()
    except BrokenPipeError:  # `reefctl status | head`
        sys.stderr.close()
        code = 0
    except OSError as error:  # a full disk, no permission: the text names the file
        place = f"{error.filename}: " if error.filename else ""
        print(f"{place}{error.strerror or error}", file=sys.stderr)
        code = 1
    sys.exit(code)
