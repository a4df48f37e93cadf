"""Tells images apart.

Without an explicit kind, the first of these that fits decides:

1. the ELF magic: with a multiboot header → ``multiboot`` or ``multiboot2``, without → ``elf32``
   or ``elf64`` (other classes and machines are refused);
2. a first sector that ends with 55 AA and has code or a partition table → ``boot-sector``, unless
   a multiboot header with address fields lies in that very sector;
3. a power of two from 64 KiB to 16 MiB whose last 16 bytes are code that leads into it → ``rom``;
4. a multiboot header with address fields (flag bit 16) → ``multiboot``; a multiboot 2 header
   with an address tag → ``multiboot2``;
5. bytes 55 AA at offset 510 → ``boot-sector``;
6. a multiple of 4 KiB up to 16 MiB that has such code there, or begins with any jump → ``rom``;
7. anything else → ``flat``; unless it has a multiboot header that gives no addresses, which
   is refused, as a kernel was surely meant.

A disk may have a kernel on it, and a ROM may have one inside: what says where the machine starts
goes before what merely lies in the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmshim.loader import elf, formats, multiboot, multiboot2, realmode, resetvector
from kvmshim.loader.plan import Guess, ImageKind

_FIRST_SHARED_ROM_BYTES = 64 << 10
_TABLE_OFFSET, _TABLE_ENTRY_BYTES, _TABLE_ENTRIES = 446, 16, 4
_FILL = (0x00, 0xFF)


def detect_kind(data: bytes) -> ImageKind:
    """The kind that ``data`` looks like, by the rules in this module's description."""
    return detect(data).kind


def detect(data: bytes) -> Guess:
    """What ``data`` looks like, by what, and what it could be too."""
    kind, why = _choose(data)
    others = tuple(other for other in _possible(data) if other is not kind)
    return Guess(kind, why, others, formats.note(data))


def _choose(data: bytes) -> tuple[ImageKind, str]:
    header = multiboot.find_header(data)
    if elf.is_elf(data):
        if header is not None:
            return ImageKind.MULTIBOOT, "an ELF file with a multiboot header"
        if multiboot2.find_header(data) is not None:
            return ImageKind.MULTIBOOT2, "an ELF file with a multiboot 2 header"
        if elf.form_of(data) is elf.ELF64:
            return ImageKind.ELF64, "a 64-bit ELF file"
        return ImageKind.ELF32, "an ELF file"
    boots_multiboot = header is not None and header.addresses is not None
    in_first_sector = header is not None and header.offset < realmode.SECTOR_BYTES
    sector = _describe_sector(data)
    if sector and not (boots_multiboot and in_first_sector):
        return ImageKind.BOOT_SECTOR, f"its first sector ends with 55 AA and has {sector}"
    reset = resetvector.is_plausible(data) and realmode.has_rom_size(data)
    if reset and len(data) >= _FIRST_SHARED_ROM_BYTES and len(data).bit_count() == 1:
        return ImageKind.ROM, "it has a ROM's size, and reset code in its last 16 bytes"
    if boots_multiboot:
        return ImageKind.MULTIBOOT, "a multiboot header with addresses"
    second = multiboot2.find_header(data)
    if second is not None and second.has_addresses:
        return ImageKind.MULTIBOOT2, "a multiboot 2 header with addresses"
    if realmode.is_boot_sector(data):
        return ImageKind.BOOT_SECTOR, "its first sector ends with 55 AA"
    if reset or _has_jump_at_reset(data):
        return ImageKind.ROM, "a multiple of 4 KiB with a jump 16 bytes before its end"
    if header is not None:
        return ImageKind.MULTIBOOT, "a multiboot header"
    return ImageKind.FLAT, "nothing in it says what it is"


def _has_jump_at_reset(data: bytes) -> bool:
    at_reset = data[-resetvector.RESET_BYTES :]
    return realmode.has_rom_size(data) and resetvector.begins_with_jump(at_reset)


def _describe_sector(data: bytes) -> str:
    """What makes the first sector one that a BIOS boots; empty if nothing does."""
    if not realmode.is_boot_sector(data):
        return ""
    if data[0] not in _FILL:
        return "code"
    return "a partition table" if _has_partition_table(data) else ""


def _has_partition_table(data: bytes) -> bool:
    """Four entries of which one has a type and a size, the others too or nothing at all."""
    found = 0
    for index in range(_TABLE_ENTRIES):
        start = _TABLE_OFFSET + index * _TABLE_ENTRY_BYTES
        entry = data[start : start + _TABLE_ENTRY_BYTES]
        if not any(entry):
            continue
        if entry[0] not in (0x00, 0x80) or not entry[4] or not any(entry[12:]):
            return False
        found += 1
    return found > 0


def _possible(data: bytes) -> Iterator[ImageKind]:
    """Every kind that the loader might take ``data`` for if it is told to, the likelier first."""
    if realmode.is_boot_sector(data):
        yield ImageKind.BOOT_SECTOR
    if multiboot.find_header(data) is not None:
        yield ImageKind.MULTIBOOT
    if multiboot2.find_header(data) is not None:
        yield ImageKind.MULTIBOOT2
    if elf.is_elf(data):
        yield ImageKind.ELF64 if elf.form_of(data) is elf.ELF64 else ImageKind.ELF32
        return
    if realmode.has_rom_size(data):
        yield ImageKind.ROM
    yield ImageKind.FLAT
    if not realmode.is_boot_sector(data):
        yield ImageKind.FLAT32
        yield ImageKind.FLAT64
