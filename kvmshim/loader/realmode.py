"""Images that start in real mode: flat binaries, boot sectors and ROMs."""

from __future__ import annotations

from kvmshim.loader.bios import BIOS_INFO_ADDRESS, bios_info_block
from kvmshim.loader.plan import (
    BOOT_SECTOR_ADDRESS,
    FIRST_HARD_DISK,
    ONE_MIB,
    RESET_START,
    BootPlan,
    ImageKind,
    RealStart,
    Rom,
    Segment,
)
from kvmshim.loader.request import Extent, Request
from kvmshim.units import format_size

SECTOR_BYTES = 512
BOOT_SIGNATURE_OFFSET = 510
BOOT_SIGNATURE = b"\x55\xaa"

ROM_GRANULE_BYTES = 4 << 10
MAX_ROM_BYTES = 16 << 20

_SEGMENT_BYTES = 64 << 10
#: What a stack needs below the place it starts at.
_STACK_BYTES = 1 << 10
_PAGE_MASK = (4 << 10) - 1


def is_boot_sector(data: bytes) -> bool:
    """Whether ``data`` bears the signature that a BIOS looks for at the end of a boot sector."""
    return data[BOOT_SIGNATURE_OFFSET:SECTOR_BYTES] == BOOT_SIGNATURE


def has_rom_size(data: bytes) -> bool:
    """Whether a ROM can be of this size."""
    return 0 < len(data) <= MAX_ROM_BYTES and len(data) % ROM_GRANULE_BYTES == 0


def plan_flat(data: bytes, request: Request) -> BootPlan:
    """A flat binary: bytes that are loaded where asked and entered there."""
    request.check_append_absent("a flat image")
    address = BOOT_SECTOR_ADDRESS if request.load_address is None else request.load_address
    entry = address if request.entry is None else request.entry
    image = Extent(address, len(data))
    request.check_memory([image], "give a lower load address")
    request.check_entry(entry, [image])
    if request.bios:
        if address != BOOT_SECTOR_ADDRESS or entry != BOOT_SECTOR_ADDRESS:
            raise request.refuse(
                f"the BIOS starts what lies at {BOOT_SECTOR_ADDRESS:#x}, "
                f"not an image loaded at {address:#x} and entered at {entry:#x}",
                "leave out the BIOS or the addresses",
            )
        return _through_bios(data, ImageKind.FLAT, request)
    start = _real_start(entry, image, request)
    segments = (Segment(address, data),)
    return BootPlan(name=request.name, kind=ImageKind.FLAT, segments=segments, start=start)


def plan_boot_sector(data: bytes, request: Request) -> BootPlan:
    """A boot sector, with whatever follows it in the image."""
    if not is_boot_sector(data):
        raise request.refuse(
            f"it is no boot sector: bytes 55 AA are missing at offset {BOOT_SIGNATURE_OFFSET}",
            "add them or choose kind flat",
        )
    request.check_append_absent("a boot sector")
    if request.load_address not in (None, BOOT_SECTOR_ADDRESS):
        raise request.refuse(
            f"a boot sector is loaded at {BOOT_SECTOR_ADDRESS:#x}, not at "
            f"{request.load_address:#x}",
            "leave out the load address or choose kind flat",
        )
    if request.bios is not False:
        if request.entry not in (None, BOOT_SECTOR_ADDRESS):
            raise request.refuse(
                f"the BIOS enters a boot sector at {BOOT_SECTOR_ADDRESS:#x}, "
                f"not at {request.entry:#x}",
                "leave out the entry or the BIOS",
            )
        return _through_bios(data, ImageKind.BOOT_SECTOR, request)
    image = Extent(BOOT_SECTOR_ADDRESS, len(data))
    request.check_memory([image], "make the image smaller")
    entry = BOOT_SECTOR_ADDRESS if request.entry is None else request.entry
    return BootPlan(
        name=request.name,
        kind=ImageKind.BOOT_SECTOR,
        segments=(Segment(BOOT_SECTOR_ADDRESS, data),),
        start=_real_start(request.check_entry(entry, [image]), image, request),
    )


def plan_rom(data: bytes, request: Request) -> BootPlan:
    """A ROM: the processor starts in it, 16 bytes before its end, as after a reset."""
    if not has_rom_size(data):
        raise request.refuse(
            f"a ROM has a multiple of {format_size(ROM_GRANULE_BYTES)} and at most "
            f"{format_size(MAX_ROM_BYTES)}, this image has {len(data)} bytes",
            "pad it or choose kind flat",
        )
    request.check_append_absent("a ROM")
    request.check_load_address_absent("a ROM ends at 4 GiB")
    request.check_bios_absent("a ROM takes the place of the BIOS")
    if request.entry is not None:
        raise request.refuse(
            f"entry {request.entry:#x} was given, but a ROM starts at the reset vector",
            "leave out the entry",
        )
    rom = Rom(data, shadowed=True)
    return BootPlan(name=request.name, kind=ImageKind.ROM, start=RESET_START, rom=rom)


def _through_bios(data: bytes, kind: ImageKind, request: Request) -> BootPlan:
    """Starts in the BIOS, which jumps to 0x7C00 and reads the rest through INT 13h.

    An image that fits conventional memory is loaded whole, so that one that outgrew its sector
    still works. Of a larger one (a disk image) the first sector is loaded, as a PC's BIOS does.
    """
    whole = BOOT_SECTOR_ADDRESS + len(data) <= BIOS_INFO_ADDRESS
    loaded = Segment(BOOT_SECTOR_ADDRESS, data if whole else data[:SECTOR_BYTES])
    size_bytes = len(data) + -len(data) % SECTOR_BYTES
    disk_address = (request.memory_bytes - size_bytes) & ~_PAGE_MASK
    if disk_address < ONE_MIB:
        needed_bytes = ONE_MIB + size_bytes + _PAGE_MASK & ~_PAGE_MASK
        raise request.refuse(
            f"the BIOS keeps the image's {format_size(len(data))} above 1 MiB as its disk, "
            f"the machine has {format_size(request.memory_bytes)}",
            f"give it at least {format_size(needed_bytes)} or leave out the BIOS",
        )
    information = bios_info_block(disk_address, len(data), screen=request.screen)
    return BootPlan(
        name=request.name,
        kind=kind,
        segments=(loaded, information),
        information=information,
        start=RESET_START,
        bios=True,
        disk_image=Segment(disk_address, data, size_bytes - len(data)),
    )


def _real_start(entry: int, image: Extent, request: Request) -> RealStart:
    sp = _stack_top(image)
    if entry < _SEGMENT_BYTES:
        return RealStart(cs_selector=0, cs_base=0, ip=entry, sp=sp, edx=FIRST_HARD_DISK)
    if entry >= ONE_MIB or entry % 16:
        raise request.refuse(
            f"real mode can't start at {entry:#x}: from 64 KiB up, an entry is a multiple of 16 "
            "below 1 MiB",
            "move the entry",
        )
    return RealStart(cs_selector=entry >> 4, cs_base=entry, ip=0, sp=sp, edx=FIRST_HARD_DISK)


def _stack_top(image: Extent) -> int:
    """SP (with SS 0): the first of three usual places with 1 KiB free below it.

    0x7C00 as BIOSes leave it, just below the image, or the segment's end (SP 0 wraps to FFFE).
    The interrupt vectors and BIOS data, up to 0x500, stay clear. An image that fills the whole
    segment gets 0x7C00 regardless and sets up a stack of its own.
    """
    below_image = min(image.address, _SEGMENT_BYTES) & ~1
    for top in (BOOT_SECTOR_ADDRESS, below_image, _SEGMENT_BYTES):
        stack = Extent(top - _STACK_BYTES, _STACK_BYTES)
        clear = stack.end <= image.address or image.end <= stack.address
        if clear and stack.address >= 0x500:
            return top % _SEGMENT_BYTES
    return BOOT_SECTOR_ADDRESS
