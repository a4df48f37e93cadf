"""What a loader puts into conventional memory around an image, and where there is room for it."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kvmshim.loader.plan import CONVENTIONAL_END, EBDA_ADDRESS, Segment
from kvmshim.loader.request import Extent, Request

#: Interrupt vectors and BIOS data lie below.
_FIRST_FREE = 0x1000
#: Other loaders put their information here, so kernels that use low memory leave it alone.
_USUAL = 0x9000
#: Where PC boot loaders have their stack's top.
_STACK_TOP = 0x7C00
_STACK_BYTES = (16 << 10, 4 << 10)
_PAGE_BYTES = 4 << 10

# -- BIOS data area (IBM PC/AT Technical Reference, ROM BIOS data areas) --------------------------
_BDA_ADDRESS, _BDA_BYTES = 0x400, 0x100
_COM1 = 0x3F8
_EQUIPMENT = 0x0222  # one serial port, 80x25 colour text, coprocessor
_KEYS, _KEYS_END = 0x1E, 0x3E
_TEXT_MODE, _COLUMNS, _PAGE_OF_TEXT, _CRTC, _LAST_ROW = 3, 80, 0x1000, 0x3D4, 24

# -- descriptors (Intel SDM volume 3, 3.4.5) ------------------------------------------------------
CODE_SELECTOR, DATA_SELECTOR = 0x08, 0x10
_DESCRIPTORS = struct.Struct("<4Q")
GDT_BYTES = _DESCRIPTORS.size
_CODE32, _CODE64, _DATA = 0x00CF_9B00_0000_FFFF, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF

# -- page tables (Intel SDM volume 3, 4.5) --------------------------------------------------------
_PRESENT_WRITABLE, _LARGE = 0x3, 0x80
_ENTRIES = 512
_LARGE_PAGE_BYTES = 2 << 20
_DIRECTORIES = 4


class LowMemory:
    """Conventional memory below the extended BIOS data area, handed out around an image."""

    def __init__(self, segments: Iterable[Segment], request: Request) -> None:
        self._taken = [Extent(s.address, s.end - s.address) for s in segments]
        self._request = request
        self._end = min(EBDA_ADDRESS, request.memory_bytes)

    def place(self, size_bytes: int, what: str, align: int = 16) -> int:
        """Takes a free place, and refuses the image if it leaves none for ``what``."""
        address = self.find(size_bytes, align)
        if address is None:
            raise self._request.refuse(
                f"it leaves no {size_bytes} bytes of memory below {CONVENTIONAL_END:#x} for {what}",
                "load it higher, at 1 MiB for example",
            )
        return address

    def stack_top(self) -> int:
        """Takes a place for a stack; 0 if the image leaves none."""
        tops = [_STACK_TOP, self._end & ~15, *(e.address & ~15 for e in sorted(self._taken))]
        for size_bytes in _STACK_BYTES:
            for top in tops:
                stack = Extent(top - size_bytes, size_bytes)
                if stack.address >= _FIRST_FREE and top <= self._end and self._is_free(stack):
                    self._taken.append(stack)
                    return top
        return 0

    def bios_data(self) -> list[Segment]:
        """The BIOS data area and the extended one, as far as the image leaves them alone."""
        areas = [
            Segment(_BDA_ADDRESS, _bios_data_area(self._end >> 10)),
            Segment(EBDA_ADDRESS, b"\x01", CONVENTIONAL_END - EBDA_ADDRESS - 1),  # its size in KiB
        ]
        return [
            area
            for area in areas
            if self._is_free(Extent(area.address, area.end - area.address))
            and area.end <= self._request.memory_bytes
        ]

    def find(self, size_bytes: int, align: int = 16) -> int | None:
        """Takes a free place; None if there is none."""
        for start, end in ((_USUAL, self._end), (_FIRST_FREE, _USUAL)):
            address = start
            for taken in sorted(self._taken):
                if taken.address < address + size_bytes and taken.end > address:
                    address = taken.end + align - 1 & -align
            if address + size_bytes <= min(end, self._end):
                self._taken.append(Extent(address, size_bytes))
                return address
        return None

    def _is_free(self, extent: Extent) -> bool:
        return all(t.end <= extent.address or extent.end <= t.address for t in self._taken)


def _bios_data_area(conventional_kib: int) -> bytes:
    """As a BIOS leaves it: kernels look for serial ports, text mode and memory here."""
    area = bytearray(_BDA_BYTES)
    struct.pack_into("<H", area, 0x00, _COM1)
    struct.pack_into("<HH", area, 0x0E, EBDA_ADDRESS >> 4, _EQUIPMENT)
    struct.pack_into("<H", area, 0x13, conventional_kib)
    struct.pack_into("<HH", area, 0x1A, _KEYS, _KEYS)
    struct.pack_into("<BHH", area, 0x49, _TEXT_MODE, _COLUMNS, _PAGE_OF_TEXT)
    struct.pack_into("<H", area, 0x63, _CRTC)
    struct.pack_into("<HHB", area, 0x80, _KEYS, _KEYS_END, _LAST_ROW)
    return bytes(area)


def descriptor_table(*, long_mode: bool) -> bytes:
    """A GDT with flat code (08h) and data (10h), for kernels that load segments before their own.

    In 64-bit mode there is 32-bit code too, at 18h.
    """
    code = _CODE64 if long_mode else _CODE32
    return _DESCRIPTORS.pack(0, code, _DATA, _CODE32 if long_mode else _DATA)


def page_tables(address: int) -> bytes:
    """Four-level page tables at ``address``: each address below 4 GiB is its own.

    The last 2 GiB of the address space show the first 2 GiB, where kernels are linked to run.
    """
    level3, level3_high = address + _PAGE_BYTES, address + 2 * _PAGE_BYTES
    directories = [address + (3 + n) * _PAGE_BYTES for n in range(_DIRECTORIES)]
    tables = [{0: level3, _ENTRIES - 1: level3_high}, dict(enumerate(directories))]
    tables.append({_ENTRIES - 2: directories[0], _ENTRIES - 1: directories[1]})
    packed = b"".join(_table(table) for table in tables)
    pages = range(_DIRECTORIES * _ENTRIES)
    large = (n * _LARGE_PAGE_BYTES | _LARGE | _PRESENT_WRITABLE for n in pages)
    return packed + struct.pack(f"<{len(pages)}Q", *large)


def _table(entries: dict[int, int]) -> bytes:
    filled = [entries.get(n, 0) for n in range(_ENTRIES)]
    return struct.pack(f"<{_ENTRIES}Q", *(e | _PRESENT_WRITABLE if e else 0 for e in filled))


#: What :func:`page_tables` gives.
PAGE_TABLES_BYTES = (3 + _DIRECTORIES) * _PAGE_BYTES
