# SPDX-License-Identifier: Apache-2.0
"""What a code object says of its kernels: registers, local memory, spills; and the occupancy that follows on gfx906."""

import struct
from typing import Any, NamedTuple

import msgspec

from .instance import Kernel, ceil_div


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


def _sections(code: bytes) -> list[_Section]:
    if code[:5] != b"\x7fELF\x02":
        raise NotesError("not a 64-bit ELF file")
    (start,) = struct.unpack_from("<Q", code, 40)
    size, count, names = struct.unpack_from("<HHH", code, 58)
    raw = [struct.unpack_from("<IIQQQQIIQQ", code, start + i * size) for i in range(count)]
    text = code[raw[names][4] :]
    return [_Section(_text(text, r[0]), r[1], code[r[4] : r[4] + r[5]] if r[1] != 8 else b"", r[6]) for r in raw]


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
    """By kernel name, from a cubin's .nv.info: registers of a thread, and its stack frame."""
    sections = _sections(code)
    symbols = next(s for s in sections if s.name == ".symtab")
    names = sections[symbols.link].data
    info = next((s.data for s in sections if s.name == ".nv.info"), b"")
    found: dict[str, dict[int, int]] = {}
    at = 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != 4:
            continue
        if attribute in (0x2F, 0x11):  # register count, frame size: (symbol, value)
            symbol, value = struct.unpack_from("<II", info, at)
            (name,) = struct.unpack_from("<I", symbols.data, symbol * 24)
            found.setdefault(_text(names, name), {})[attribute] = value
        at += size
    return {name: Resources(v.get(0x2F, 0), 0, 0, v.get(0x11, 0)) for name, v in found.items()}


def occupancy(kernel: Kernel, resources: Resources) -> int:
    """Waves on one SIMD of gfx906: 256 vector registers a lane in fours, 64 KiB of LDS a compute unit, at most 10."""
    waves = ceil_div(kernel.threads, 64)
    by_registers = 256 // (ceil_div(max(1, resources.vector_registers), 4) * 4)
    by_memory = (64 << 10) // max(1, kernel.shared + resources.local_bytes) * waves // 4
    return min(10, by_registers, max(1, by_memory) if kernel.shared <= 64 << 10 else 0)
