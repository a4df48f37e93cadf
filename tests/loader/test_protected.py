"""ELF and multiboot images: what is loaded, what is refused, what a kernel is told."""

from __future__ import annotations

import struct

import pytest
from images import CODE, MIB, Load, elf, elf64, multiboot_elf, multiboot_flat, multiboot_header

from kvmshim.errors import InputError
from kvmshim.loader import BootPlan, LongStart, ProtectedStart, Segment, plan_image
from kvmshim.loader.request import Module

MEMORY_BYTES = 16 * MIB


def plan(data: bytes, name: str = "kernel.elf", **options: object) -> BootPlan:
    settings = {"memory_bytes": MEMORY_BYTES, **options}
    return plan_image(data, name, **settings)  # type: ignore[arg-type]


def started(boot: BootPlan) -> tuple[int, int, int]:
    """EIP, EAX and EBX at the start of a 32-bit image."""
    assert isinstance(boot.start, ProtectedStart)
    return boot.start.eip, boot.start.eax, boot.start.ebx


# -- ELF --------------------------------------------------------------------------------------


def test_an_elf_file_s_segments_go_to_their_physical_addresses_with_zeroed_bss() -> None:
    data = elf([Load(data=CODE, memory_bytes=100), Load(paddr=0x4000, data=b"low")])
    assert plan(data).segments == (Segment(MIB, CODE, 98), Segment(0x4000, b"low"))


def test_an_elf_file_starts_at_its_entry_with_nothing_in_its_registers() -> None:
    assert started(plan(elf(entry=MIB + 1))) == (MIB + 1, 0, 0)


@pytest.mark.parametrize("entry", [0xC0100001, 0x100001])
def test_a_kernel_linked_high_starts_at_the_physical_entry(entry: int) -> None:
    data = elf([Load(paddr=MIB, vaddr=0xC0100000)], entry=entry)
    assert started(plan(data)) == (0x100001, 0, 0)


def test_an_entry_can_be_chosen() -> None:
    assert started(plan(elf(), entry=MIB + 1)) == (MIB + 1, 0, 0)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (elf(machine=62), "a 32-bit little-endian ELF file for x86_64; only 32-bit"),
        (elf64(machine=183), "a 64-bit little-endian ELF file for aarch64; only 64-bit"),
        (elf64()[:64], "cut short"),
        (elf(machine=40), "a 32-bit little-endian ELF file for arm; only 32-bit"),
        (elf(byte_order=2, machine=8), "a 32-bit big-endian ELF file for mips; only 32-bit"),
        (elf(elf_class=9, byte_order=7, machine=999), "class 9 order 7 ELF file for machine 999"),
        (elf(elf_type=1), "an object file that was not linked; link it"),
        (elf(elf_type=3), r"position-independent; .*-no-pie"),
        (elf(elf_type=77), "of type 77"),
        (elf()[:40], "cut short: 40 bytes"),
        (elf()[:60], "program headers lie beyond its end"),
        (elf()[:-1], "cut short: segment 0x100000-0x100001"),
        (elf([]), "nothing to load"),
        (elf([Load(memory_bytes=1)]), "2 bytes in the file but only 1 in memory"),
        (elf([Load(), Load(paddr=MIB + 1)]), r"0x100000-0x100001 and 0x100001-0x100002.*overlap"),
        (elf([Load(memory_bytes=MEMORY_BYTES)]), "needs memory at 0x100000-0x10fffff"),
        (elf(entry=0), "entry 0x0 lies outside"),
        (elf([Load(memory_bytes=99)], entry=MIB + 50), "entry 0x100032 lies outside"),
    ],
)
def test_an_elf_file_that_cannot_be_booted_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(data)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"append": "quiet"}, "receives none; leave out --append, or build a multiboot image"),
        ({"load_address": 0}, "load address 0x0 was given"),
        ({"bios": True}, "the BIOS was asked for"),
        ({"entry": 0}, "entry 0x0 lies outside"),
    ],
)
def test_a_plain_elf_file_takes_no_command_line_address_or_bios(
    options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(elf(), **options)


# -- multiboot --------------------------------------------------------------------------------


def info_of(boot: BootPlan) -> Segment:
    assert boot.information is not None
    assert boot.information in boot.segments
    return boot.information


def word(segment: Segment, offset: int) -> int:
    return int(struct.unpack_from("<I", segment.data, offset)[0])


def text_at(segment: Segment, address: int) -> str:
    return segment.data[address - segment.address :].partition(b"\0")[0].decode()


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 1 << 17])
def test_a_multiboot_kernel_starts_with_the_magic_and_its_information(flags: int) -> None:
    boot = plan(multiboot_elf(flags))
    assert started(boot) == (MIB + 12, 0x2BADB002, info_of(boot).address)


def test_the_information_says_how_much_memory_there_is() -> None:
    info = info_of(plan(multiboot_elf()))
    assert word(info, 0) == 1 << 0 | 1 << 2 | 1 << 6 | 1 << 9
    assert (word(info, 4), word(info, 8)) == (639, 15 * 1024)


def test_the_command_line_is_the_file_name_and_the_appended_text() -> None:
    info = info_of(plan(multiboot_elf(), "/boot/kernel.elf", append="quiet vga=1"))
    assert text_at(info, word(info, 16)) == "kernel.elf quiet vga=1"


def test_the_information_names_the_loader() -> None:
    info = info_of(plan(multiboot_elf()))
    assert text_at(info, word(info, 64)) == "kvmshim"


def test_the_memory_map_has_ram_what_is_not_for_kernels_and_ram() -> None:
    info = info_of(plan(multiboot_elf()))
    start = word(info, 48) - info.address
    ranges = list(struct.iter_unpack("<IQQI", info.data[start : start + word(info, 44)]))
    assert ranges == [
        (20, 0, 0x9FC00, 1),
        (20, 0x9FC00, 0x60400, 2),
        (20, MIB, 15 * MIB, 1),
    ]


@pytest.mark.parametrize(("load", "expected"), [(MIB, 0x9000), (0x8FF4, 0x9010)])
def test_the_information_avoids_the_kernel(load: int, expected: int) -> None:
    assert info_of(plan(multiboot_elf(address=load))).address == expected


def test_the_information_goes_below_a_kernel_that_fills_the_rest_of_low_memory() -> None:
    data = elf([Load(paddr=0x9000, data=multiboot_header(), memory_bytes=0x97000)], entry=0x9000)
    assert info_of(plan(data)).address == 0x1000


def test_a_kernel_that_leaves_no_low_memory_is_refused() -> None:
    data = elf([Load(paddr=0, data=multiboot_header(), memory_bytes=0xA0000)], entry=0)
    with pytest.raises(InputError, match="for the multiboot information; load it higher"):
        plan(data)


def test_address_fields_say_where_a_flat_kernel_goes() -> None:
    data = multiboot_flat(load_end=MIB + 33, bss_end=MIB + 64)
    boot = plan(b"skip" * 4 + data)
    assert boot.segments[0] == Segment(MIB, data[:33], 31)
    assert started(boot) == (MIB + 32, 0x2BADB002, info_of(boot).address)


def test_without_a_load_end_the_whole_file_is_loaded() -> None:
    assert plan(multiboot_flat()).segments[0] == Segment(MIB, multiboot_flat())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (multiboot_elf(1 << 2), r"flags 0x0004 \(a video mode\)"),
        (multiboot_elf(1 << 15), "flags 0x8000;"),
        (multiboot_flat(load_end=MIB + 99), "don't fit its 34 bytes"),
        (multiboot_flat(load_end=MIB), "don't fit"),
        (multiboot_flat(load_end=MIB - 1), "don't fit"),
        (multiboot_flat(bss_end=MIB + 3), "bss_end_addr 0x100003 below"),
        (multiboot_flat(load=MEMORY_BYTES), "needs memory at 0x1000000"),
        (multiboot_flat(bss_end=1 << 31), "needs memory at 0x100000-0x7fffffff"),
        (multiboot_header(1 << 16, MIB, MIB + 1, 0, 0, MIB) + CODE, "don't fit"),
        (multiboot_header(1 << 16, MIB, MIB - 1, 0, 0, MIB) + CODE, "don't fit"),
        (multiboot_header(1 << 16, MIB, MIB, 0, 0, MIB - 1) + CODE, "entry 0xfffff lies outside"),
    ],
)
def test_a_multiboot_image_that_cannot_be_booted_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(data)


@pytest.mark.parametrize("append", ["a\0b", "x" * 4096, "\ud800"])
def test_a_command_line_that_no_kernel_could_take_is_refused(append: str) -> None:
    with pytest.raises(InputError, match="command line"):
        plan(multiboot_elf(), append=append)


# -- modules ----------------------------------------------------------------------------------


def test_modules_lie_on_pages_above_the_kernel_and_are_listed_with_their_text() -> None:
    files = (Module("/x/env", b"A=1"), Module("initrd.img", bytes(5000), "root=/ ro"))
    boot = plan(multiboot_elf(), modules=files)
    info = info_of(boot)
    assert word(info, 0) & 1 << 3
    count, address = word(info, 20), word(info, 24)
    listed = list(struct.iter_unpack("<4I", info.data[address - info.address :][: 16 * count]))
    assert [(start, end) for start, end, _, _ in listed] == [
        (MIB + 0x1000, MIB + 0x1003),
        (MIB + 0x2000, MIB + 0x2000 + 5000),
    ]
    assert [text_at(info, text) for _, _, text, _ in listed] == ["env", "initrd.img root=/ ro"]
    placed = {segment.address: segment.data for segment in boot.around}
    assert [placed[start] for start, _, _, _ in listed] == [b"A=1", bytes(5000)]


def test_a_module_that_memory_has_no_room_for_is_refused() -> None:
    with pytest.raises(InputError, match=r"module 'm' would lie at 0x101000.*16 MiB; give"):
        plan(multiboot_elf(), modules=(Module("m", bytes(15 * MIB)),))


def test_a_module_is_for_multiboot_kernels_only() -> None:
    with pytest.raises(InputError, match="module 'm' was given, but an image of kind elf32"):
        plan(elf(), modules=(Module("m", b"x"),))


# -- what a 32-bit image finds around it --------------------------------------------------------


def memory_of(boot: BootPlan, address: int, size: int) -> bytes:
    for segment in boot.memory():
        if segment.address <= address < segment.end:
            data = segment.data.ljust(segment.end - segment.address, b"\0")
            return data[address - segment.address :][:size]
    return b""


@pytest.mark.parametrize("data", [elf(), multiboot_elf(), multiboot_flat()])
def test_a_kernel_has_a_stack_that_meets_nothing(data: bytes) -> None:
    boot = plan(data)
    assert isinstance(boot.start, ProtectedStart)
    top = boot.start.esp
    assert top == 0x7C00
    assert all(s.end <= top - 4096 or s.address >= top for s in boot.memory())


@pytest.mark.parametrize(
    ("address", "size", "top"), [(0x6000, 0x2000, 0x9FC00), (0x5000, 0x9AC00, 0x5000)]
)
def test_the_stack_gives_way_to_the_image(address: int, size: int, top: int) -> None:
    data = elf([Load(paddr=address, memory_bytes=size)], entry=address)
    start = plan(data).start
    assert isinstance(start, ProtectedStart)
    assert start.esp == top


def test_a_kernel_finds_the_bios_data_that_a_pc_has() -> None:
    data = memory_of(plan(multiboot_elf()), 0x400, 0x100)
    port, extended, kib = (int.from_bytes(data[at : at + 2], "little") for at in (0, 0x0E, 0x13))
    assert (port, extended, kib) == (0x3F8, 0x9FC0, 639)
    assert memory_of(plan(multiboot_elf()), extended << 4, 1) == b"\x01"


def test_bios_data_gives_way_to_an_image_that_is_loaded_there() -> None:
    boot = plan(elf([Load(paddr=0x400, data=b"own bytes")], entry=0x400))
    assert memory_of(boot, 0x400, 9) == b"own bytes"


def test_the_segments_can_be_loaded_again_from_a_descriptor_table() -> None:
    boot = plan(elf())
    assert isinstance(boot.start, ProtectedStart)
    assert boot.start.gdt is not None
    code, data = struct.unpack("<8x2Q", memory_of(boot, boot.start.gdt, 24))
    assert (code, data) == (0x00CF9B000000FFFF, 0x00CF93000000FFFF)


# -- 64-bit images ------------------------------------------------------------------------------


def long_start(boot: BootPlan) -> LongStart:
    assert isinstance(boot.start, LongStart)
    return boot.start


def translate(boot: BootPlan, address: int) -> int | None:
    """What the page tables say of a virtual address."""
    table = long_start(boot).cr3
    for shift in (39, 30, 21):
        entry = struct.unpack("<Q", memory_of(boot, table + (address >> shift & 511) * 8, 8))[0]
        if not entry & 1:
            return None
        if entry & 0x80:
            return int(entry & ~0xFFF & -1 << shift) + (address & (1 << shift) - 1)
        table = entry & ~0xFFF
    raise AssertionError("a page of 4 KiB")


def test_a_64_bit_elf_file_starts_in_64_bit_mode() -> None:
    boot = plan(elf64(Load(memory_bytes=100)))
    assert boot.kind == "elf64"
    assert boot.segments == (Segment(MIB, CODE, 98),)
    assert (long_start(boot).rip, long_start(boot).rsp) == (MIB, 0x7C00)


@pytest.mark.parametrize(
    ("virtual", "physical"),
    [
        *((address, address) for address in (0, 0x123456, 0x7FFF_FFFF, 0xFFFF_FFFF)),
        (0xFFFF_FFFF_8010_0000, MIB),
        (0xFFFF_FFFF_FFFF_FFFF, 0x7FFF_FFFF),
        (1 << 32, None),
        (0xFFFF_8000_0000_0000, None),
    ],
)
def test_page_tables_show_4_gib_as_they_are_and_2_gib_at_the_top(
    virtual: int, physical: int | None
) -> None:
    assert translate(plan(elf64()), virtual) == physical


def test_a_64_bit_kernel_with_a_multiboot_header_starts_in_32_bit_mode() -> None:
    boot = plan(elf64(Load(data=multiboot_header() + CODE), entry=MIB + 12))
    assert boot.kind == "multiboot"
    assert started(boot) == (MIB + 12, 0x2BADB002, info_of(boot).address)


# -- flat images of 32 and 64 bits --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat32", "flat64"])
def test_a_flat_image_goes_to_1_mib_or_where_it_is_told(kind: str) -> None:
    for options, address, entry in (
        ({}, MIB, MIB),
        ({"load_address": 0x20000}, 0x20000, 0x20000),
        ({"load_address": 0x20000, "entry": 0x20001}, 0x20000, 0x20001),
    ):
        boot = plan(CODE, kind=kind, **options)
        assert boot.segments == (Segment(address, CODE),)
        start = boot.start
        assert entry == (start.rip if isinstance(start, LongStart) else getattr(start, "eip", None))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"append": "x"}, "a flat image receives none"),
        ({"bios": True}, "the BIOS was asked for"),
        ({"load_address": MEMORY_BYTES}, "needs memory at 0x1000000"),
        ({"entry": 5}, "entry 0x5 lies outside"),
    ],
)
def test_a_flat_image_of_32_bits_takes_neither_command_line_nor_bios(
    options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(CODE, kind="flat32", **options)


def test_a_64_bit_image_that_leaves_no_room_for_page_tables_is_refused() -> None:
    with pytest.raises(InputError, match="for page tables; load it higher"):
        plan(bytes(0xA0000), kind="flat64", load_address=0)
