"""Images are told apart by themselves."""

from __future__ import annotations

import pytest
from images import boot_sector, elf, multiboot_elf, multiboot_flat, multiboot_header, rom

from kvmshim.errors import InputError
from kvmshim.loader import ImageKind, detect_kind, plan_image

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
