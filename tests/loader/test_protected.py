"""ELF and multiboot images: what is loaded, what is refused, what a kernel is told."""

from __future__ import annotations

import struct

import pytest
from images import CODE, MIB, Load, elf, multiboot_elf, multiboot_flat, multiboot_header

from kvmshim.errors import InputError
from kvmshim.loader import BootPlan, ProtectedStart, Segment, plan_image

MEMORY_BYTES = 16 * MIB


def plan(data: bytes, name: str = "kernel.elf", **options: object) -> BootPlan:
    settings = {"memory_bytes": MEMORY_BYTES, **options}
    return plan_image(data, name, **settings)  # type: ignore[arg-type]


# -- ELF --------------------------------------------------------------------------------------


def test_an_elf_file_s_segments_go_to_their_physical_addresses_with_zeroed_bss() -> None:
    data = elf([Load(data=CODE, memory_bytes=100), Load(paddr=0x4000, data=b"low")])
    assert plan(data).segments == (Segment(MIB, CODE, 98), Segment(0x4000, b"low"))


def test_an_elf_file_starts_at_its_entry_with_nothing_in_its_registers() -> None:
    assert plan(elf(entry=MIB + 1)).start == ProtectedStart(eip=MIB + 1, eax=0, ebx=0)


@pytest.mark.parametrize("entry", [0xC0100001, 0x100001])
def test_a_kernel_linked_high_starts_at_the_physical_entry(entry: int) -> None:
    data = elf([Load(paddr=MIB, vaddr=0xC0100000)], entry=entry)
    assert plan(data).start == ProtectedStart(eip=0x100001)


def test_an_entry_can_be_chosen() -> None:
    assert plan(elf(), entry=MIB + 1).start == ProtectedStart(eip=MIB + 1)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (elf(elf_class=2, machine=62), "a 64-bit little-endian ELF file for x86_64; only 32-bit"),
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
    assert boot.start == ProtectedStart(eip=MIB + 12, eax=0x2BADB002, ebx=info_of(boot).address)


def test_the_information_says_how_much_memory_there_is() -> None:
    info = info_of(plan(multiboot_elf()))
    assert word(info, 0) == 1 << 0 | 1 << 2 | 1 << 6 | 1 << 9
    assert (word(info, 4), word(info, 8)) == (640, 15 * 1024)


def test_the_command_line_is_the_file_name_and_the_appended_text() -> None:
    info = info_of(plan(multiboot_elf(), "/boot/kernel.elf", append="quiet vga=1"))
    assert text_at(info, word(info, 16)) == "kernel.elf quiet vga=1"


def test_the_information_names_the_loader() -> None:
    info = info_of(plan(multiboot_elf()))
    assert text_at(info, word(info, 64)) == "kvmshim"


def test_the_memory_map_has_ram_the_adapter_area_and_ram() -> None:
    info = info_of(plan(multiboot_elf()))
    start = word(info, 48) - info.address
    ranges = list(struct.iter_unpack("<IQQI", info.data[start : start + word(info, 44)]))
    assert ranges == [
        (20, 0, 0xA0000, 1),
        (20, 0xA0000, 0x60000, 2),
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
    assert boot.start == ProtectedStart(eip=MIB + 32, eax=0x2BADB002, ebx=info_of(boot).address)


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
