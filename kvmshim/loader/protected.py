"""Images that start in protected or in 64-bit mode: ELF files, multiboot kernels, flat binaries."""

from __future__ import annotations

from dataclasses import replace

from kvmshim.loader import elf, multiboot, multiboot2
from kvmshim.loader.lowmemory import PAGE_TABLES_BYTES, LowMemory, descriptor_table, page_tables
from kvmshim.loader.plan import (
    ONE_MIB,
    BootPlan,
    ImageKind,
    LongStart,
    ProtectedStart,
    Segment,
)
from kvmshim.loader.request import Extent, Request

_PAGE_BYTES = 4 << 10


def plan_elf32(data: bytes, request: Request) -> BootPlan:
    """An ELF executable for i386."""
    image = _elf(data, elf.ELF32, request)
    return _in_protected_mode(ImageKind.ELF32, image, request)


def plan_elf64(data: bytes, request: Request) -> BootPlan:
    """An ELF executable for x86-64."""
    image = _elf(data, elf.ELF64, request)
    return _in_long_mode(ImageKind.ELF64, image, request)


def plan_flat32(data: bytes, request: Request) -> BootPlan:
    """Bytes that are loaded where asked and entered there in 32-bit mode."""
    return _in_protected_mode(ImageKind.FLAT32, _flat(data, request), request)


def plan_flat64(data: bytes, request: Request) -> BootPlan:
    """The same in 64-bit mode."""
    return _in_long_mode(ImageKind.FLAT64, _flat(data, request), request)


def plan_multiboot(data: bytes, request: Request) -> BootPlan:
    """A multiboot kernel; it starts in 32-bit mode also when it is a 64-bit ELF file."""
    header = multiboot.find_header(data)
    if header is None:
        raise request.refuse(
            f"it has no multiboot header in its first {multiboot.SEARCH_BYTES} bytes",
            "add one or choose another kind",
        )
    _check_knows_its_place(request)
    image = multiboot.parse_multiboot(data, header, request)
    modules = multiboot.place_modules(image.segments, request)
    low = LowMemory(image.segments, request)
    information = multiboot.information(modules, low, request)
    return _multiboot(image, modules, information, low, request)


def plan_multiboot2(data: bytes, request: Request) -> BootPlan:
    """A multiboot 2 kernel; it too starts in 32-bit mode."""
    header = multiboot2.find_header(data)
    if header is None:
        raise request.refuse(
            f"it has no multiboot 2 header in its first {multiboot2.SEARCH_BYTES} bytes",
            "add one or choose another kind",
        )
    _check_knows_its_place(request)
    image = multiboot2.parse_multiboot2(data, header, request)
    modules = multiboot.place_modules(image.segments, request)
    low = LowMemory(image.segments, request)
    information = multiboot2.information(modules, low, request)
    plan = _multiboot(image, modules, information, low, request)
    assert isinstance(plan.start, ProtectedStart)
    start = replace(plan.start, eax=multiboot2.BOOTLOADER_MAGIC)
    return replace(plan, kind=ImageKind.MULTIBOOT2, start=start)


def _multiboot(
    image: elf.ElfImage,
    modules: tuple[Segment, ...],
    information: Segment,
    low: LowMemory,
    request: Request,
) -> BootPlan:
    around, start = _surroundings(image, low)
    return BootPlan(
        name=request.name,
        kind=ImageKind.MULTIBOOT,
        segments=(*image.segments, information),
        information=information,
        around=(*modules, *around),
        start=replace(start, eax=multiboot.BOOTLOADER_MAGIC, ebx=information.address),
    )


def _elf(data: bytes, form: elf.Form, request: Request) -> elf.ElfImage:
    if not elf.is_elf(data):
        raise request.refuse("it is no ELF file", "leave out the kind or choose flat")
    request.check_append_absent("an ELF file without a multiboot header")
    _check_knows_its_place(request)
    return elf.parse_elf(data, form, request)


def _flat(data: bytes, request: Request) -> elf.ElfImage:
    request.check_append_absent("a flat image")
    _check_no_bios(request)
    address = ONE_MIB if request.load_address is None else request.load_address
    image = Extent(address, len(data))
    request.check_memory([image], "give a lower load address")
    entry = address if request.entry is None else request.check_entry(request.entry, [image])
    return elf.ElfImage((Segment(address, data),), entry)


def _in_protected_mode(kind: ImageKind, image: elf.ElfImage, request: Request) -> BootPlan:
    around, start = _surroundings(image, LowMemory(image.segments, request))
    return BootPlan(
        name=request.name, kind=kind, segments=image.segments, around=tuple(around), start=start
    )


def _surroundings(image: elf.ElfImage, low: LowMemory) -> tuple[list[Segment], ProtectedStart]:
    """What a 32-bit image finds around it, each thing only where the image leaves room for it."""
    around = low.bios_data()
    table = descriptor_table(long_mode=False)
    gdt = low.find(len(table))
    if gdt is not None:
        around.append(Segment(gdt, table))
    return around, ProtectedStart(eip=image.entry, esp=low.stack_top(), gdt=gdt)


def _in_long_mode(kind: ImageKind, image: elf.ElfImage, request: Request) -> BootPlan:
    """A 64-bit image can't start without page tables."""
    low = LowMemory(image.segments, request)
    around = low.bios_data()
    cr3 = low.place(PAGE_TABLES_BYTES, "page tables", align=_PAGE_BYTES)
    around.append(Segment(cr3, page_tables(cr3)))
    table = descriptor_table(long_mode=True)
    gdt = low.place(len(table), "a descriptor table")
    around.append(Segment(gdt, table))
    return BootPlan(
        name=request.name,
        kind=kind,
        segments=image.segments,
        around=tuple(around),
        start=LongStart(rip=image.entry, rsp=low.stack_top(), cr3=cr3, gdt=gdt),
    )


def _check_knows_its_place(request: Request) -> None:
    request.check_load_address_absent("the image says itself where it goes")
    _check_no_bios(request)


def _check_no_bios(request: Request) -> None:
    request.check_bios_absent("this image starts in protected mode, where a BIOS is of no use")
