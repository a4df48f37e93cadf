"""Multiboot 2 kernels: where they go, what they are told, what they can't ask for."""

from __future__ import annotations

import struct

import pytest
from images import CODE, MIB, Load, elf, elf64, multiboot2_header, multiboot_header

from kvmshim.errors import InputError
from kvmshim.loader import BootPlan, ProtectedStart, Segment, detect_kind, plan_image
from kvmshim.loader.request import Module

OPTIONAL = 1
#: In a file, so that an ELF header of 84 bytes leaves the multiboot header aligned to 8 bytes.
PAD = bytes(4)


def plan(data: bytes, **options: object) -> BootPlan:
    return plan_image(data, "k.elf", memory_bytes=16 * MIB, **options)  # type: ignore[arg-type]


def kernel(*tags: tuple[int, int, bytes]) -> bytes:
    """An ELF file with its header at a multiple of 8."""
    code = PAD + multiboot2_header(*tags) + CODE
    return elf([Load(data=code)], entry=MIB + len(code) - len(CODE))


def flat(*tags: tuple[int, int, bytes]) -> bytes:
    return multiboot2_header(*tags) + CODE


def address(load: int = MIB, load_end: int = 0, bss_end: int = 0) -> tuple[int, int, bytes]:
    return 2, 0, struct.pack("<4I", load, load, load_end, bss_end)


def entry(at: int) -> tuple[int, int, bytes]:
    return 3, 0, struct.pack("<I", at)


def start(boot: BootPlan) -> ProtectedStart:
    assert isinstance(boot.start, ProtectedStart)
    return boot.start


def told(boot: BootPlan) -> list[tuple[int, bytes]]:
    """The tags of the information, whose sizes must add up."""
    info = boot.information
    assert info is not None
    assert info.address % 8 == 0
    total, reserved = struct.unpack_from("<II", info.data)
    assert (total, reserved) == (len(info.data), 0)
    tags, at = [], 8
    while at < total:
        kind, size = struct.unpack_from("<II", info.data, at)
        tags.append((kind, info.data[at + 8 : at + size]))
        at += size + -size % 8
    assert tags[-1] == (0, b"")
    return tags[:-1]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (kernel(), "multiboot2"),
        (elf64(Load(data=multiboot2_header() + CODE)), "multiboot2"),
        (flat(address()), "multiboot2"),
        (flat(), "flat"),
        (bytes(4) + flat(address()), "flat"),
        (bytes(32768) + flat(address()), "flat"),
        (kernel()[:92] + b"x" + kernel()[93:], "elf32"),
        (elf([Load(data=multiboot_header() + multiboot2_header())]), "multiboot"),
    ],
)
def test_a_header_is_told_by_its_magic_place_and_checksum(data: bytes, kind: str) -> None:
    assert detect_kind(data) == kind


def test_a_kernel_starts_in_32_bit_mode_with_the_magic_and_its_information() -> None:
    boot = plan(kernel())
    assert boot.information is not None
    assert boot.kind == "multiboot2"
    code_at = len(PAD) + len(multiboot2_header())
    assert start(boot).eip == MIB + code_at
    assert (start(boot).eax, start(boot).ebx) == (0x36D76289, boot.information.address)
    assert start(boot).esp == 0x7C00


def test_the_information_has_command_line_loader_modules_and_memory() -> None:
    modules = (Module("/x/env", b"A=1", "text"),)
    boot = plan(kernel(), append="quiet", modules=modules)
    ranges = [(0, 0x9FC00, 1, 0), (0x9FC00, 0x60400, 2, 0), (MIB, 15 * MIB, 1, 0)]
    memory_map = struct.pack("<II", 24, 0) + b"".join(struct.pack("<QQII", *r) for r in ranges)
    assert told(boot) == [
        (1, b"k.elf quiet\0"),
        (2, b"kvmshim\0"),
        (3, struct.pack("<II", MIB + 0x1000, MIB + 0x1003) + b"env text\0"),
        (4, struct.pack("<II", 639, 15 * 1024)),
        (6, memory_map),
    ]


def test_an_address_tag_says_where_a_flat_kernel_goes() -> None:
    header = multiboot2_header(address(), entry(0))
    data = flat(address(bss_end=MIB + 200), entry(MIB + len(header)))
    boot = plan(data)
    assert boot.segments[0] == Segment(MIB, data, 200 - len(data))
    assert start(boot).eip == MIB + len(header)


def test_a_flat_kernel_may_be_loaded_from_the_files_beginning() -> None:
    everything = (2, 0, struct.pack("<4I", MIB + 16, 0xFFFFFFFF, 0, 0))
    data = bytes(16) + flat(everything, entry(MIB))
    assert plan(data).segments[0] == Segment(MIB, data)


def test_an_entry_tag_goes_before_the_entry_of_the_elf_file() -> None:
    assert start(plan(kernel(entry(MIB + 1)))).eip == MIB + 1
    assert start(plan(kernel(entry(MIB + 1)), entry=MIB + 2)).eip == MIB + 2


@pytest.mark.parametrize(
    "tags",
    [
        [(1, 0, struct.pack("<3I", 1, 4, 6))],
        [(1, OPTIONAL, struct.pack("<I", 14))],
        [(4, 0, bytes(4)), (6, 0, b""), (7, 0, b""), (10, 0, bytes(16))],
        [(5, OPTIONAL, bytes(12))],
        [(99, OPTIONAL, b"")],
    ],
)
def test_what_is_there_or_optional_can_be_asked_for(tags: list[tuple[int, int, bytes]]) -> None:
    assert plan(kernel(*tags)).kind == "multiboot2"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (kernel((1, 0, struct.pack("<2I", 4, 14))), "not offered: information 14; mark that as op"),
        (kernel((5, 0, bytes(12))), "not offered: header tag 5"),
        (kernel((99, 0, b"")), "not offered: header tag 99"),
        (kernel(entry(5)), "entry 0x5 lies outside"),
        (flat(address()), "has no entry tag"),
        (flat(address(load_end=MIB + 9999), entry(MIB)), "don't fit"),
    ],
)
def test_a_kernel_that_cannot_be_booted_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(data)


@pytest.mark.parametrize("data", [CODE, flat()])
def test_a_kind_that_is_named_is_checked(data: bytes) -> None:
    with pytest.raises(InputError, match=r"has no multiboot 2 header|neither ELF nor says where"):
        plan(data, kind="multiboot2")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 0xFFFFFFFF])
def test_a_tag_of_any_size_ends_the_header_at_worst(size: int) -> None:
    body = struct.pack("<HHI", 99, OPTIONAL, size)
    length = 16 + len(body)
    head = struct.pack("<4I", 0xE85250D6, 0, length, -(0xE85250D6 + length) & 0xFFFFFFFF)
    assert plan(elf([Load(data=PAD + head + body + CODE)])).kind == "multiboot2"
