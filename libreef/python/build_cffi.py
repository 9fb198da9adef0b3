# SPDX-License-Identifier: Apache-2.0
"""Writes the C source of `libreef._reef`, the cffi (API mode) binding of reef.h and reef_abi.h.

    python build_cffi.py OUT.c

The headers stay the single source: what cffi's parser cannot read (comments, directives, alignment, layout assertions)
is taken out of their text here, and what it must not guess (values of constants, structures with aligned members) is
left to the C compiler, which sees the real headers.
"""

import re
import sys
from pathlib import Path

from cffi import FFI  # type: ignore[import-untyped, unused-ignore]

INCLUDE = Path(__file__).resolve().parent.parent / "include"
HEADERS = ("reef_abi.h", "reef.h")


def without_cplusplus(text: str) -> str:
    """Keeps the C side of `#ifdef __cplusplus ... [#else ...] #endif`; these blocks do not nest."""

    def c_side(block: re.Match[str]) -> str:
        _, _, other = block.group(1).partition("#else\n")
        return other

    return re.sub(r"^#ifdef __cplusplus\n(.*?)^#endif\n", c_side, text, flags=re.M | re.S)


def declarations(text: str) -> str:
    """A header's declarations in the dialect of `FFI.cdef`."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = without_cplusplus(text)
    constants = re.findall(r"^#define (REEF_[A-Z0-9_]+) +(?:0x)?[0-9a-fA-F]+u?\s*$", text, flags=re.M)
    text = re.sub(r"^#.*\n", "", text, flags=re.M)
    text = re.sub(r"^REEF_ASSERT_\w+\(.*\);\n", "", text, flags=re.M)
    text = text.replace("REEF_API ", "")

    def enumerators(enum: re.Match[str]) -> str:
        names = re.findall(r"(?:^|,)\s*(\w+)", enum.group(2))
        return f"enum {enum.group(1)}{{ {', '.join(names)}, ... }};"

    def aligned(struct: re.Match[str]) -> str:
        return struct.group(0).replace("REEF_HOT ", "")[: -len("};")] + "    ...;\n};"

    text = re.sub(r"enum (\w+ )?\{(.*?)\};", lambda e: enumerators(e).replace("enum None", "enum "), text, flags=re.S)
    text = re.sub(r"struct \w+ \{[^}]*REEF_HOT[^}]*\};", aligned, text, flags=re.S)
    return "\n".join([*(f"#define {name} ..." for name in constants), text])


def main() -> None:
    ffi = FFI()
    for name in HEADERS:
        ffi.cdef(declarations((INCLUDE / name).read_text()))
    ffi.set_source("libreef._reef", "#include <reef.h>\n")
    ffi.emit_c_code(sys.argv[1])


if __name__ == "__main__":
    main()
