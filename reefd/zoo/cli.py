# SPDX-License-Identifier: Apache-2.0
"""reefctl zoo: writes well-known networks as ONNX files."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from reefd.cli_numbers import Count, Seed


def zoo(
    *names: Annotated[str, Parameter(help="which networks; none: list them")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="the folder for NAME.onnx")] = Path(),
    seed: Annotated[Seed, Parameter(help="of the random weights")] = 1,
    batch: Annotated[Count, Parameter(help="pictures or sentences of one request")] = 1,
) -> int:
    """Write networks of the literature as ONNX files, with seeded random weights.

    For measuring and testing: topologies and parameter counts are the published ones, what they compute is noise.
    """
    try:
        import onnx

        from reefd.zoo import NETWORKS, build
    except ModuleNotFoundError as error:
        print(f"{error}; please run: pip install 'reefd[compile]'", file=sys.stderr)
        return 1
    if not names:
        for name, (_, parameters) in NETWORKS.items():
            print(f"{name:<14} {parameters:>12,} parameters")
        return 0
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        print(f"no network {', '.join(unknown)}; there are: {', '.join(NETWORKS)}", file=sys.stderr)
        return 1
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = output / f"{name}.onnx"
        try:
            onnx.save(build(name, seed, batch), path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        print(path)
    return 0
