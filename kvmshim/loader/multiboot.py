"""Multiboot 1: the header in an image, and the information that its kernel is handed.

Source: Multiboot Specification 0.6.96, sections 3.1 (header), 3.2 (machine state) and
3.3 (information format).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from pathlib import PurePath

from kvmshim.loader.elf import ElfImage, form_of, is_elf, parse_elf
from kvmshim.loader.lowmemory import LowMemory
from kvmshim.loader.plan import EBDA_ADDRESS, ONE_MIB, Segment
from kvmshim.loader.request import Extent, Request
from kvmshim.units import format_size

HEADER_MAGIC = 0x1BADB002
#: In EAX when the kernel starts (3.2).
BOOTLOADER_MAGIC = 0x2BADB002
#: The header lies wholly in this many first bytes of the file (3.1).
SEARCH_BYTES = 8192
LOADER_NAME = "kvmshim"
MAX_COMMAND_LINE_BYTES = 4096

_HEADER = struct.Struct("<III")
_ADDRESS_FIELDS = struct.Struct("<5I")
_INFO_BYTES = 120
_MAP_ENTRY = struct.Struct("<IQQI")
_MODULE = struct.Struct("<4I")
_PAGE_BYTES = 4 << 10
_RAM, _RESERVED = 1, 2


class HeaderFlag(IntFlag):
    """The header's ``flags``. Bits 0 to 15 are demands that a loader must meet or refuse."""

    ALIGN_MODULES = 1 << 0
    MEMORY_INFO = 1 << 1
    VIDEO_MODE = 1 << 2
    ADDRESS_FIELDS = 1 << 16


class InfoFlag(IntFlag):
    """The information's ``flags``: which of its fields are valid."""

    MEMORY = 1 << 0
    CMDLINE = 1 << 2
    MODS = 1 << 3
    MMAP = 1 << 6
    BOOT_LOADER_NAME = 1 << 9


_DEMANDS = 0xFFFF
_MET_DEMANDS = HeaderFlag.ALIGN_MODULES | HeaderFlag.MEMORY_INFO


@dataclass(frozen=True)
class AddressFields:
    """Where to load an image that is not ELF (3.1.3); all are physical addresses."""

    header_addr: int
    load_addr: int
    load_end_addr: int
    bss_end_addr: int
    entry_addr: int


@dataclass(frozen=True)
class Header:
    """A multiboot header, ``offset`` bytes into the file."""

    offset: int
    flags: int
    addresses: AddressFields | None


def find_header(data: bytes) -> Header | None:
    """The first valid multiboot header of ``data``, if it has one."""
    head = data[:SEARCH_BYTES]
    magic = HEADER_MAGIC.to_bytes(4, "little")
    offset = head.find(magic)
    while offset >= 0:
        header = _header_at(head, offset)
        if header is not None:
            return header
        offset = head.find(magic, offset + 1)
    return None


def _header_at(head: bytes, offset: int) -> Header | None:
    if offset % 4 or offset + _HEADER.size > len(head):
        return None
    magic, flags, checksum = _HEADER.unpack_from(head, offset)
    if (magic + flags + checksum) & 0xFFFF_FFFF:
        return None
    if not flags & HeaderFlag.ADDRESS_FIELDS:
        return Header(offset, flags, None)
    if offset + _HEADER.size + _ADDRESS_FIELDS.size > len(head):
        return None
    fields = _ADDRESS_FIELDS.unpack_from(head, offset + _HEADER.size)
    return Header(offset, flags, AddressFields(*fields))


def parse_multiboot(data: bytes, header: Header, request: Request) -> ElfImage:
    """What to load: by the header's address fields if it has them, else by the ELF headers."""
    unmet = header.flags & _DEMANDS & ~_MET_DEMANDS
    if unmet:
        video = " (a video mode)" if unmet & HeaderFlag.VIDEO_MODE else ""
        raise request.refuse(
            f"its multiboot header demands what is not offered: flags {unmet:#06x}{video}",
            "build it without these flags",
        )
    if header.addresses is not None:
        return by_address_fields(data, header.offset, header.addresses, request)
    if is_elf(data):
        return parse_elf(data, form_of(data), request)
    raise request.refuse(
        "it has a multiboot header, but is neither ELF nor says where to load it "
        "(header flag bit 16)",
        "build an ELF file or choose kind flat",
    )


def by_address_fields(
    data: bytes, header_offset: int, fields: AddressFields, request: Request
) -> ElfImage:
    """What to load of an image whose header lies at ``header_offset``, by its address fields."""
    start = header_offset - (fields.header_addr - fields.load_addr)
    length = fields.load_end_addr - fields.load_addr if fields.load_end_addr else len(data) - start
    if not 0 <= start <= header_offset or length <= 0 or start + length > len(data):
        raise request.refuse(
            f"its multiboot address fields (header {fields.header_addr:#x}, load "
            f"{fields.load_addr:#x}-{fields.load_end_addr:#x}) don't fit its {len(data)} bytes",
            "correct the header",
        )
    end = fields.load_addr + length
    if fields.bss_end_addr and fields.bss_end_addr < end:
        raise request.refuse(
            f"its multiboot header has bss_end_addr {fields.bss_end_addr:#x} below the end of "
            f"what it loads, {end:#x}",
            "correct the header",
        )
    zero_bytes = max(fields.bss_end_addr - end, 0)
    loaded = Extent(fields.load_addr, length)
    request.check_memory([Extent(fields.load_addr, length + zero_bytes)], "load it lower")
    entry = fields.entry_addr if request.entry is None else request.entry
    segment = Segment(fields.load_addr, data[start : start + length], zero_bytes)
    return ElfImage((segment,), request.check_entry(entry, [loaded]))


# -- modules ----------------------------------------------------------------------------------


def place_modules(segments: tuple[Segment, ...], request: Request) -> tuple[Segment, ...]:
    """The modules, each on a page of its own, above the image and above 1 MiB."""
    end = max(ONE_MIB, *(segment.end for segment in segments))
    placed = []
    for module in request.modules:
        start = end + _PAGE_BYTES - 1 & -_PAGE_BYTES
        end = start + len(module.data)
        if end > request.memory_bytes:
            raise request.refuse(
                f"its module '{module.name}' would lie at {start:#x} to {end:#x}, the machine has "
                f"{format_size(request.memory_bytes)}",
                "give the machine more memory",
            )
        placed.append(Segment(start, module.data))
    return tuple(placed)


# -- the information structure ----------------------------------------------------------------


def information(modules: tuple[Segment, ...], low: LowMemory, request: Request) -> Segment:
    """The multiboot information, in low memory.

    The structure comes first; the memory map, the list of modules and the strings that it points to
    follow it.
    """
    flags = InfoFlag.MEMORY | InfoFlag.CMDLINE | InfoFlag.MMAP | InfoFlag.BOOT_LOADER_NAME
    memory_map = _memory_map(request.memory_bytes)
    strings = [command_line(request.name, request.append, "--append", request)]
    strings.append(LOADER_NAME.encode() + b"\0")
    strings += [command_line(m.name, m.text, "--module", request) for m in request.modules]
    list_bytes = len(modules) * _MODULE.size
    size_bytes = _INFO_BYTES + len(memory_map) + list_bytes + sum(map(len, strings))
    address = low.place(size_bytes, "the multiboot information")
    map_address = address + _INFO_BYTES
    list_address = map_address + len(memory_map)
    text_addresses = [list_address + list_bytes]
    for string in strings:
        text_addresses.append(text_addresses[-1] + len(string))
    info = bytearray(_INFO_BYTES)
    struct.pack_into("<III", info, 0, flags, *memory_kib(request.memory_bytes))
    struct.pack_into("<I", info, 16, text_addresses[0])
    if modules:
        struct.pack_into("<I", info, 0, flags | InfoFlag.MODS)
        struct.pack_into("<II", info, 20, len(modules), list_address)
    struct.pack_into("<II", info, 44, len(memory_map), map_address)
    struct.pack_into("<I", info, 64, text_addresses[1])
    entries = b"".join(
        _MODULE.pack(module.address, module.end, text, 0)
        for module, text in zip(modules, text_addresses[2:], strict=False)
    )
    return Segment(address, bytes(info) + memory_map + entries + b"".join(strings))


def command_line(name: str, append: str, option: str, request: Request) -> bytes:
    """A file's name and the text that follows it, ended by a zero byte."""
    text = f"{PurePath(name).name} {append}".strip()
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise request.refuse("its command line is not text", f"correct {option}") from None
    if b"\0" in encoded or len(encoded) >= MAX_COMMAND_LINE_BYTES:
        raise request.refuse(
            f"its command line has a zero byte or {MAX_COMMAND_LINE_BYTES} bytes or more",
            f"shorten {option}",
        )
    return encoded + b"\0"


def memory_kib(memory_bytes: int) -> tuple[int, int]:
    """The KiB of memory from 0 and from 1 MiB."""
    return min(memory_bytes, EBDA_ADDRESS) >> 10, max(memory_bytes - ONE_MIB, 0) >> 10


def memory_ranges(memory_bytes: int) -> list[tuple[int, int, int]]:
    """The memory map: start, length and type of each range."""
    ends = [(0, min(memory_bytes, EBDA_ADDRESS), _RAM)]
    if memory_bytes > EBDA_ADDRESS:
        ends.append((EBDA_ADDRESS, ONE_MIB, _RESERVED))
    if memory_bytes > ONE_MIB:
        ends.append((ONE_MIB, memory_bytes, _RAM))
    return [(start, end - start, kind) for start, end, kind in ends]


def _memory_map(memory_bytes: int) -> bytes:
    size = _MAP_ENTRY.size - 4  # the size field does not count itself
    return b"".join(_MAP_ENTRY.pack(size, *row) for row in memory_ranges(memory_bytes))
