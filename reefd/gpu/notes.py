# SPDX-License-Identifier: Apache-2.0
"""What a code object says of its kernels: registers, local memory, spills."""

import struct
from typing import Any, NamedTuple

import msgspec

from .instance import ceil_div

_REGISTERS, _FRAME = 0x2F, 0x11  # attributes of .nv.info


class NotesError(Exception):
    """Not a code object of the kind that was asked for."""


class Resources(NamedTuple):
    """Registers of a thread (vector), of a wave (scalar); bytes of local memory known to the compiler; scratch."""

    vector_registers: int
    scalar_registers: int
    local_bytes: int
    scratch_bytes: int


class _Section(NamedTuple):
    name: str
    type: int
    data: bytes
    link: int
    size: int


def _sections(code: bytes) -> list[_Section]:
    if code[:5] != b"\x7fELF\x02":
        raise NotesError("not a 64-bit ELF file")
    (start,) = struct.unpack_from("<Q", code, 40)
    size, count, names = struct.unpack_from("<HHH", code, 58)
    raw = [struct.unpack_from("<IIQQQQIIQQ", code, start + i * size) for i in range(count)]
    text = code[raw[names][4] :]
    return [_Section(_text(text, r[0]), r[1], code[r[4] : r[4] + r[5]] if r[1] != 8 else b"", r[6], r[5]) for r in raw]


def _text(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


def amd_resources(code: bytes) -> dict[str, Resources]:
    """By kernel name, from the AMDGPU metadata note (MessagePack)."""
    for section in _sections(code):
        data, at = section.data, 0
        while section.type == 7 and at + 12 <= len(data):
            name_size, size, kind = struct.unpack_from("<III", data, at)
            start = at + 12 + ceil_div(name_size, 4) * 4
            if kind == 32 and data[at + 12 : at + 18] == b"AMDGPU":
                note: dict[str, Any] = msgspec.msgpack.decode(data[start : start + size])
                return {k[".name"]: _amd(k) for k in note["amdhsa.kernels"]}
            at = start + ceil_div(size, 4) * 4
    raise NotesError("no AMDGPU metadata note")


def _amd(kernel: dict[str, Any]) -> Resources:
    scratch = kernel[".private_segment_fixed_size"] + kernel[".vgpr_spill_count"] + kernel[".sgpr_spill_count"]
    return Resources(kernel[".vgpr_count"], kernel[".sgpr_count"], kernel[".group_segment_fixed_size"], scratch)


def nvidia_resources(code: bytes) -> dict[str, Resources]:
    """By kernel name, from a cubin: registers of a thread and its stack frame from .nv.info, shared memory that the
    source declares from the size of its section."""
    sections = _sections(code)
    symbols = next((s for s in sections if s.name == ".symtab"), None)
    info = next((s.data for s in sections if s.name == ".nv.info"), b"")
    if symbols is None or not info:
        raise NotesError("not a cubin")
    names = sections[symbols.link].data
    found: dict[str, dict[int, int]] = {}
    at = 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != 4:
            continue
        if attribute in (_REGISTERS, _FRAME):  # (symbol, value)
            symbol, value = struct.unpack_from("<II", info, at)
            (name,) = struct.unpack_from("<I", symbols.data, symbol * 24)
            found.setdefault(_text(names, name), {})[attribute] = value
        at += size
    shared = {s.name.removeprefix(".nv.shared."): s.size for s in sections if s.name.startswith(".nv.shared.")}
    return {
        name: Resources(v.get(_REGISTERS, 0), 0, shared.get(name, 0), v.get(_FRAME, 0)) for name, v in found.items()
    }


def code_resources(target: str, code: bytes) -> dict[str, Resources]:
    """By the name of the entry point; nothing for code that runs on a processor. NotesError."""
    if target.startswith("gfx"):
        return amd_resources(code)
    return nvidia_resources(code) if target.startswith("sm_") else {}
