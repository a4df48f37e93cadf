"""Multiboot 2: the header in an image, and the information that its kernel is handed.

Source: Multiboot2 Specification 2.0, sections 3.1 (header), 3.3 (machine state) and
3.6 (information).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from kvmshim.loader.elf import ElfImage, form_of, is_elf, parse_elf
from kvmshim.loader.lowmemory import LowMemory
from kvmshim.loader.multiboot import (
    LOADER_NAME,
    AddressFields,
    by_address_fields,
    command_line,
    memory_kib,
    memory_ranges,
)
from kvmshim.loader.plan import Segment
from kvmshim.loader.request import Extent, Request

HEADER_MAGIC = 0xE85250D6
#: In EAX when the kernel starts (3.3).
BOOTLOADER_MAGIC = 0x36D76289
#: The header lies wholly in this many first bytes of the file (3.1.1).
SEARCH_BYTES = 32768

_HEADER = struct.Struct("<4I")
_TAG = struct.Struct("<HHI")
_INFO_TAG = struct.Struct("<II")
_ALIGNMENT = 8
_OPTIONAL = 1
#: As a load address: the whole file is loaded.
_FROM_THE_BEGINNING = 0xFFFF_FFFF


class HeaderTag(IntEnum):
    """What a header can ask for, as far as it is told apart here (3.1.3 to 3.1.12)."""

    END = 0
    INFORMATION_REQUEST = 1
    ADDRESS = 2
    ENTRY = 3
    CONSOLE = 4
    MODULE_ALIGNMENT = 6
    EFI_BOOT_SERVICES = 7
    EFI_ENTRY_32 = 8
    EFI_ENTRY_64 = 9
    RELOCATABLE = 10


class InfoTag(IntEnum):
    """What the information has (3.6)."""

    END = 0
    CMDLINE = 1
    BOOT_LOADER_NAME = 2
    MODULE = 3
    MEMORY = 4
    MMAP = 6


#: Met by doing nothing: text is the only console, modules lie on pages, there is no EFI, and a
#: kernel may stay where it was linked.
_MET = tuple(tag for tag in HeaderTag if tag not in (HeaderTag.END, HeaderTag.INFORMATION_REQUEST))


@dataclass(frozen=True)
class Tag:
    """A tag of the header: its type, whether a loader may ignore it, and what follows."""

    type: int
    optional: bool
    data: bytes


@dataclass(frozen=True)
class Header:
    """A multiboot 2 header, ``offset`` bytes into the file."""

    offset: int
    tags: tuple[Tag, ...]

    def find(self, wanted: HeaderTag, size_bytes: int) -> bytes | None:
        """What the first such tag holds, if it is as long as that."""
        found = (tag.data for tag in self.tags if tag.type == wanted)
        data = next(found, b"")
        return data[:size_bytes] if len(data) >= size_bytes else None

    @property
    def has_addresses(self) -> bool:
        """Whether it says where an image that is not ELF goes."""
        return self.find(HeaderTag.ADDRESS, 16) is not None


def find_header(data: bytes) -> Header | None:
    """The first valid multiboot 2 header of ``data``, if it has one."""
    head = data[:SEARCH_BYTES]
    magic = HEADER_MAGIC.to_bytes(4, "little")
    offset = head.find(magic)
    while offset >= 0:
        if offset % _ALIGNMENT == 0 and offset + _HEADER.size <= len(head):
            fields = _HEADER.unpack_from(head, offset)
            if not sum(fields) & 0xFFFF_FFFF and fields[1] == 0:  # architecture: i386
                return Header(offset, tuple(_tags(head[offset : offset + fields[2]])))
        offset = head.find(magic, offset + 1)
    return None


def _tags(header: bytes) -> Iterator[Tag]:
    at = _HEADER.size
    while at + _TAG.size <= len(header):
        kind, flags, size = _TAG.unpack_from(header, at)
        if kind == HeaderTag.END or size < _TAG.size:
            return
        yield Tag(kind, bool(flags & _OPTIONAL), header[at + _TAG.size : at + size])
        at += size + -size % _ALIGNMENT


def parse_multiboot2(data: bytes, header: Header, request: Request) -> ElfImage:
    """What to load: by the header's address tag if it has one, else by the ELF headers."""
    _check_demands(header, request)
    addresses = header.find(HeaderTag.ADDRESS, 16)
    entry_data = header.find(HeaderTag.ENTRY, 4)
    entry = None if entry_data is None else int.from_bytes(entry_data, "little")
    if addresses is not None:
        if entry is None and request.entry is None:
            raise request.refuse(
                "its multiboot 2 header says where to load it, but has no entry tag", "add one"
            )
        at, load, load_end, bss_end = struct.unpack("<4I", addresses)
        if load == _FROM_THE_BEGINNING:
            load = at - header.offset
        fields = AddressFields(at, load, load_end, bss_end, entry or 0)
        return by_address_fields(data, header.offset, fields, request)
    if not is_elf(data):
        raise request.refuse(
            "it has a multiboot 2 header, but is neither ELF nor says where to load it (tag 2)",
            "build an ELF file or choose kind flat",
        )
    if entry is None or request.entry is not None:
        return parse_elf(data, form_of(data), request)
    image = parse_elf(data, form_of(data), request)
    loaded = [Extent(segment.address, len(segment.data)) for segment in image.segments]
    return replace(image, entry=request.check_entry(entry, loaded))


def _check_demands(header: Header, request: Request) -> None:
    for tag in header.tags:
        wanted: tuple[int, ...] = ()
        if tag.type == HeaderTag.INFORMATION_REQUEST:
            count = len(tag.data) // 4
            asked = struct.unpack_from(f"<{count}I", tag.data)
            wanted = tuple(kind for kind in asked if kind not in tuple(InfoTag))
        elif tag.type not in _MET:
            wanted = (tag.type,)
        if wanted and not tag.optional:
            what = "information" if tag.type == HeaderTag.INFORMATION_REQUEST else "header tag"
            raise request.refuse(
                f"its multiboot 2 header demands what is not offered: {what} {wanted[0]}",
                "mark that as optional",
            )


def information(modules: tuple[Segment, ...], low: LowMemory, request: Request) -> Segment:
    """The multiboot 2 information, in low memory: one tag behind the other."""
    tags = [
        _info(InfoTag.CMDLINE, command_line(request.name, request.append, "--append", request)),
        _info(InfoTag.BOOT_LOADER_NAME, LOADER_NAME.encode() + b"\0"),
    ]
    for module, placed in zip(request.modules, modules, strict=True):
        text = command_line(module.name, module.text, "--module", request)
        tags.append(_info(InfoTag.MODULE, _INFO_TAG.pack(placed.address, placed.end) + text))
    tags.append(_info(InfoTag.MEMORY, _INFO_TAG.pack(*memory_kib(request.memory_bytes))))
    rows = [struct.pack("<QQII", *row, 0) for row in memory_ranges(request.memory_bytes)]
    tags.append(_info(InfoTag.MMAP, _INFO_TAG.pack(len(rows[0]), 0) + b"".join(rows)))
    tags.append(_info(InfoTag.END, b""))
    body = b"".join(tags)
    size_bytes = _INFO_TAG.size + len(body)
    address = low.place(size_bytes, "the multiboot information")
    return Segment(address, _INFO_TAG.pack(size_bytes, 0) + body)


def _info(tag: InfoTag, data: bytes) -> bytes:
    size_bytes = _INFO_TAG.size + len(data)
    return _INFO_TAG.pack(tag, size_bytes) + data + bytes(-size_bytes % _ALIGNMENT)
