"""Hand-made images for the loader's tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20
CODE = b"\xfa\xf4"  # cli, hlt


@dataclass(frozen=True, kw_only=True)
class Load:
    """One PT_LOAD segment."""

    paddr: int = MIB
    vaddr: int | None = None
    data: bytes = CODE
    memory_bytes: int | None = None


def elf(
    loads: Sequence[Load] = (Load(),),
    *,
    entry: int = MIB,
    elf_class: int = 1,
    byte_order: int = 1,
    elf_type: int = 2,
    machine: int = 3,
) -> bytes:
    """An ELF32 file; the keywords name fields of its header."""
    ident = b"\x7fELF" + bytes([elf_class, byte_order, 1]) + bytes(9)
    order = ">" if byte_order == 2 else "<"
    rest = (elf_type, machine, 1, entry, 52, 0, 0, 52, 32, len(loads), 0, 0, 0)
    table, body = b"", b""
    body_offset = 52 + 32 * len(loads)
    for load in loads:
        vaddr = load.paddr if load.vaddr is None else load.vaddr
        size = len(load.data) if load.memory_bytes is None else load.memory_bytes
        offset = body_offset + len(body)
        fields = (1, offset, vaddr, load.paddr, len(load.data), size, 7, 4)
        table += struct.pack("<8I", *fields)
        body += load.data
    return ident + struct.pack(order + "HHIIIIIHHHHHH", *rest) + table + body


def elf64(load: Load = Load(), *, entry: int | None = None, machine: int = 62) -> bytes:
    """An ELF64 file with one segment."""
    vaddr = load.paddr if load.vaddr is None else load.vaddr
    size = len(load.data) if load.memory_bytes is None else load.memory_bytes
    start = load.paddr if entry is None else entry
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    rest = (2, machine, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    table = struct.pack("<2I6Q", 1, 7, 120, vaddr, load.paddr, len(load.data), size, 4)
    return ident + struct.pack("<HHIQQQIHHHHHH", *rest) + table + load.data


def multiboot_header(flags: int = 0, *fields: int) -> bytes:
    """A header with a right checksum and the given address fields."""
    magic = 0x1BADB002
    return struct.pack(f"<{3 + len(fields)}I", magic, flags, -(magic + flags) & 0xFFFFFFFF, *fields)


def multiboot_elf(flags: int = 0, *, address: int = MIB) -> bytes:
    return elf([Load(paddr=address, data=multiboot_header(flags) + CODE)], entry=address + 12)


def multiboot_flat(*, load: int = MIB, load_end: int = 0, bss_end: int = 0) -> bytes:
    """A flat image whose header, 32 bytes long, comes first and is followed by code."""
    return multiboot_header(1 << 16, load, load, load_end, bss_end, load + 32) + CODE


def multiboot2_header(*tags: tuple[int, int, bytes]) -> bytes:
    """A multiboot 2 header; a tag is its type, its flags and what follows."""
    body = b""
    for kind, flags, data in (*tags, (0, 0, b"")):
        size = 8 + len(data)
        body += struct.pack("<HHI", kind, flags, size) + data + bytes(-size % 8)
    magic, length = 0xE85250D6, 16 + len(body)
    return struct.pack("<4I", magic, 0, length, -(magic + length) & 0xFFFFFFFF) + body


def boot_sector(size_bytes: int = 512) -> bytes:
    return (CODE.ljust(510, b"\0") + b"\x55\xaa").ljust(size_bytes, b"\x90")


def rom(size_bytes: int = 64 << 10, opcode: int = 0xEA) -> bytes:
    return (bytes(size_bytes - 16) + bytes([opcode])).ljust(size_bytes, b"\0")
