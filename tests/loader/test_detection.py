"""Images are told apart by themselves."""

from __future__ import annotations

import struct

import pytest
from images import boot_sector, elf, elf64, multiboot_elf, multiboot_flat, multiboot_header, rom

from kvmshim.errors import InputError
from kvmshim.loader import ImageKind, detect, detect_kind, plan_image

MEMORY_BYTES = 16 << 20


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xf4", ImageKind.FLAT),
        (bytes(4096), ImageKind.FLAT),
        (boot_sector(), ImageKind.BOOT_SECTOR),
        (boot_sector(1440 << 10), ImageKind.BOOT_SECTOR),
        (boot_sector()[:511], ImageKind.FLAT),
        (rom(4096, 0xEA), ImageKind.ROM),
        (rom(4096, 0xE9), ImageKind.ROM),
        (rom(4096, 0xEB), ImageKind.ROM),
        (rom(4096, 0x90), ImageKind.FLAT),
        (rom(6000), ImageKind.FLAT),
        (rom((16 << 20) + 4096), ImageKind.FLAT),
        (elf(), ImageKind.ELF32),
        (elf64(), ImageKind.ELF64),
        (multiboot_elf(), ImageKind.MULTIBOOT),
        (multiboot_flat(), ImageKind.MULTIBOOT),
    ],
)
def test_an_image_s_kind_is_seen_from_its_bytes(data: bytes, kind: ImageKind) -> None:
    assert detect_kind(data) is kind


def test_a_boot_sector_s_signature_outweighs_a_rom_s_jump() -> None:
    both = bytearray(rom(4096))
    both[510:512] = b"\x55\xaa"
    assert detect_kind(bytes(both)) is ImageKind.BOOT_SECTOR


@pytest.mark.parametrize("offset", [0, 4, 8192 - 32])
def test_a_multiboot_header_counts_within_the_first_8192_bytes(offset: int) -> None:
    assert detect_kind(bytes(offset) + multiboot_flat()) is ImageKind.MULTIBOOT


@pytest.mark.parametrize("offset", [1, 2, 8192 - 28, 8192])
def test_a_header_that_is_unaligned_or_too_far_in_is_none(offset: int) -> None:
    assert detect_kind(bytes(offset) + multiboot_flat() + bytes(64)) is ImageKind.FLAT


def test_a_header_with_a_wrong_checksum_is_none() -> None:
    damaged = bytearray(multiboot_flat())
    damaged[8] ^= 1
    assert detect_kind(bytes(damaged)) is ImageKind.FLAT


def test_a_damaged_header_does_not_hide_a_good_one_behind_it() -> None:
    bad = multiboot_header()[:8] + bytes(4)
    assert detect_kind(bad + multiboot_flat()) is ImageKind.MULTIBOOT


def test_a_disk_whose_kernel_has_a_multiboot_header_is_still_a_boot_sector() -> None:
    assert detect_kind(boot_sector() + multiboot_header()) is ImageKind.BOOT_SECTOR


def test_a_disk_is_a_disk_though_its_later_sectors_have_a_whole_multiboot_kernel() -> None:
    assert detect_kind(boot_sector() + multiboot_flat()) is ImageKind.BOOT_SECTOR


def test_a_partition_table_makes_a_disk_without_any_code() -> None:
    disk = bytearray(512) + multiboot_flat()
    disk[446:462] = struct.pack("<BBBBBBBBII", 0x80, 0, 2, 0, 0x0C, 0, 9, 0, 1, 8)
    disk[510:512] = b"\x55\xaa"
    assert detect_kind(bytes(disk)) is ImageKind.BOOT_SECTOR


def test_a_kernel_whose_55_aa_is_chance_is_a_kernel() -> None:
    kernel = bytearray(multiboot_flat().ljust(4096, b"\0"))
    kernel[510:512] = b"\x55\xaa"
    assert detect_kind(bytes(kernel)) is ImageKind.MULTIBOOT  # the header is in that very sector
    behind = bytearray(512) + multiboot_flat()
    behind[510:512] = b"\x55\xaa"
    assert detect_kind(bytes(behind)) is ImageKind.MULTIBOOT  # neither code nor a table before it


# -- ROMs -----------------------------------------------------------------------------------------

#: What firmware has at its reset vector: a jump at once, or a few instructions before it.
RESET_CODE = {
    "far": b"\xea\x00\xff\x00\xf0",  # jmp f000:ff00
    "near": b"\xe9\x0d\xff",  # jmp ff00
    "short": b"\xeb\x80",  # jmp ff72
    "cli first": b"\xfa\xe9\x0c\xff",
    "nops first": b"\x90\x90\xe9\x0b\xff",
    "wbinvd first": b"\x0f\x09\xe9\x0b\xff",
    "32-bit operand": b"\x66\xe9\x0a\xff\xff\xff",
    "asks for the mode": b"\x0f\x20\xc0\xa8\x01\x74\x05\xe9\x06\xff",  # mov eax, cr0; …
    "through memory": b"\x2e\xff\x2e\x00\xff",  # jmp far [cs:ff00]
    "mov ax first": b"\xb8\x00\xf0\x8e\xd8\xe9\x08\xff",
}


def firmware(size_bytes: int, reset_code: bytes) -> bytes:
    """A ROM full of code, with this at its reset vector."""
    return b"\xf4" * (size_bytes - 16) + reset_code.ljust(16, b"\0")


@pytest.mark.parametrize("reset_code", RESET_CODE.values(), ids=RESET_CODE)
@pytest.mark.parametrize("size_kib", [64, 128, 256, 2048, 16384])
def test_firmware_of_every_size_and_beginning_is_a_rom(size_kib: int, reset_code: bytes) -> None:
    assert detect_kind(firmware(size_kib << 10, reset_code)) is ImageKind.ROM


@pytest.mark.parametrize("reset_code", RESET_CODE.values(), ids=RESET_CODE)
def test_a_rom_is_a_rom_though_it_has_a_multiboot_header_inside(reset_code: bytes) -> None:
    for header in (multiboot_flat(), multiboot_header()):
        image = bytearray(firmware(128 << 10, reset_code))
        image[1024 : 1024 + len(header)] = header
        assert detect_kind(bytes(image)) is ImageKind.ROM


@pytest.mark.parametrize(
    "end",
    [bytes(16), b"\xff" * 16, b"\x90" * 16, b"\xf4" * 16, b"\x90\xe9\x0c", b"some text there."],
)
def test_what_leads_nowhere_at_the_end_makes_no_rom(end: bytes) -> None:
    image = bytes((64 << 10) - len(end)) + end
    assert detect_kind(image) is ImageKind.FLAT


# -- what it could be otherwise -------------------------------------------------------------------


def test_a_guess_says_by_what_and_what_else_it_could_be() -> None:
    (line,) = detect(boot_sector(4096)).lines()
    assert line == (
        "the image was taken for kind 'boot-sector': its first sector ends with 55 AA and has "
        "code; it could be --kind rom or --kind flat"
    )


@pytest.mark.parametrize(
    ("magic", "offset", "words"),
    [
        (b"QFI\xfb", 0, "qcow2"),
        (b"\x1f\x8b\x08", 0, "gzip"),
        (b"HdrS", 0x202, "Linux kernel"),
        (b"CD001", 0x8001, "ISO 9660"),
        (b"\x55\xaa", 0, "option ROM"),
        (b"\xd6\x50\x52\xe8", 4096, "multiboot 2"),
    ],
)
def test_a_format_that_can_not_be_booted_is_named(magic: bytes, offset: int, words: str) -> None:
    guess = detect(bytes(offset) + magic + bytes(64))
    assert words in guess.lines()[1]


def test_an_image_whose_kind_was_given_was_not_guessed() -> None:
    given = plan_image(boot_sector(), "b", memory_bytes=MEMORY_BYTES, kind="flat")
    guessed = plan_image(boot_sector(), "b", memory_bytes=MEMORY_BYTES)
    assert given.guess is None
    assert guessed.guess == detect(boot_sector())


def test_a_multiboot_header_that_says_no_address_is_refused_outside_elf() -> None:
    with pytest.raises(InputError, match=r"bit 16.*choose kind flat"):
        plan_image(multiboot_header() + b"\xf4", "k", memory_bytes=MEMORY_BYTES)


def test_an_explicit_kind_overrides_what_the_image_looks_like() -> None:
    plan = plan_image(boot_sector(), "b", memory_bytes=MEMORY_BYTES, kind="flat")
    assert plan.kind is ImageKind.FLAT


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("boot-sector", "55 AA"),
        ("rom", "multiple of 4 KiB"),
        ("elf32", "no ELF file"),
        ("multiboot", "no multiboot header"),
        ("floppy", "'floppy' is no kind of image; use one of flat, boot-sector, rom"),
    ],
)
def test_an_explicit_kind_is_still_checked(kind: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plan_image(b"\xf4", "x", memory_bytes=MEMORY_BYTES, kind=kind)
