# SPDX-License-Identifier: Apache-2.0
"""The text that is compiled: the headers in kernels/gpu, one struct of constants for each kernel, its two entry points.

The text is complete (no include of a vendor or of ours is left), so a resource carries it and any compiler of the
target takes it.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from .instance import Kernel

_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)
_UNSEEN = re.compile(r"//[^\n]*|#include[^\n]*")
FORMS = ("plain", "preemptible")
_NEEDS = {"conv.cuh": ("tile.cuh", "matrix.cuh")}
_BASE = ("portable.cuh", "numbers.cuh", "gate.cuh", "activation.cuh")


def headers_dir() -> Path:
    """kernels/gpu of the source tree, or the copy that is installed with the package."""
    installed = Path(__file__).parent / "kernels"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "kernels" / "gpu"


def _inline(name: str, target: str, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    if name.startswith("target_") and name != f"target_{target}.cuh":
        return ""
    if name.startswith("host/"):
        return f'#include "{headers_dir() / name}"'
    text = (headers_dir() / name).read_text().replace("#pragma once\n", "")
    return _INCLUDE.sub(lambda match: _inline(match[1], target, seen), text)


def kernel_source(kernels: Iterable[Kernel], target: str, forms: Sequence[str] = FORMS) -> str:
    """The source of these kernels (each once) for a target: cuda, hip or host."""
    seen: set[str] = set()
    unique = {kernel.name: kernel for kernel in kernels}
    headers = list(_BASE)
    for header in sorted({kernel.header for kernel in unique.values()}):
        headers += [*_NEEDS.get(header, ()), header]
    if "preemptible" in forms:
        headers.append("window.cuh")
    parts = [_inline(header, target, seen) for header in headers]
    parts += [_entry(kernel, forms) for _, kernel in sorted(unique.items())]
    return "\n".join(parts)


def source_digest(kernels: Iterable[Kernel], target: str) -> str:
    """Of what the compiler sees of these kernels; comments, spaces and where headers lie do not count.

    A kernel's name tells its constants only. What it and the gate do is in the headers, and the engine speaks to code
    by the layout that they had.
    """
    text = _UNSEEN.sub("", kernel_source(kernels, target))
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def _entry(kernel: Kernel, forms: Sequence[str]) -> str:
    name = kernel.name
    cluster = f"REEF_CLUSTER({kernel.cluster})" if kernel.cluster > 1 else ""
    resident = f"REEF_RESIDENT({kernel.resident})" if kernel.resident > 1 else ""
    entries = [
        f"REEF_{form.upper()}({name}, {kernel.threads}, {resident}, {cluster}, {kernel.family}<K_{name}>::run)\n"
        for form in forms
    ]
    return f"struct K_{name} {{\n{kernel.text}\n}};\n" + "".join(entries)
