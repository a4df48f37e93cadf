"""Flat images, boot sectors and ROMs: where they go and how the processor starts in them."""

from __future__ import annotations

import pytest
from images import CODE, MIB, boot_sector, rom

from kvmshim.errors import InputError
from kvmshim.loader import BootPlan, RealStart, Segment, bios_info_block, plan_image

MEMORY_BYTES = 16 * MIB


def plan(data: bytes, **options: object) -> BootPlan:
    settings = {"memory_bytes": MEMORY_BYTES, **options}
    return plan_image(data, "image.bin", **settings)  # type: ignore[arg-type]


def real_start(data: bytes, **options: object) -> RealStart:
    start = plan(data, **options).start
    assert isinstance(start, RealStart)
    return start


# -- flat -------------------------------------------------------------------------------------


def test_a_flat_image_is_loaded_and_entered_at_7c00_with_the_boot_drive_in_dl() -> None:
    flat = plan(CODE)
    assert flat.segments == (Segment(0x7C00, CODE),)
    assert flat.start == RealStart(cs_selector=0, cs_base=0, ip=0x7C00, sp=0x7C00, edx=0x80)


def test_a_flat_image_is_entered_where_it_was_loaded() -> None:
    start = real_start(CODE, load_address=0x1000)
    assert (start.cs_selector, start.ip) == (0, 0x1000)


def test_an_entry_above_64k_becomes_a_paragraph() -> None:
    start = real_start(bytes(64), load_address=0x12340, entry=0x12350)
    assert (start.cs_selector, start.cs_base, start.ip) == (0x1235, 0x12350, 0)


@pytest.mark.parametrize(
    ("load_address", "size_bytes", "sp"),
    [
        (0x7C00, 512, 0x7C00),
        (0x1000, 512, 0x7C00),
        (0x100000 - 16, 8, 0x7C00),
        (0x7000, 0x1000, 0x7000),
        (0x500, 0x8000, 0),
        (0x0, 0x10000, 0x7C00),
    ],
)
def test_the_stack_keeps_clear_of_the_image(load_address: int, size_bytes: int, sp: int) -> None:
    assert real_start(bytes(size_bytes), load_address=load_address).sp == sp


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"entry": 0x7C02}, "entry 0x7c02 lies outside what is loaded"),
        ({"entry": 0x7BFF}, "entry 0x7bff lies outside"),
        ({"load_address": 0x10008}, "multiple of 16"),
        ({"load_address": 0x100000}, "below 1 MiB"),
        ({"load_address": -1}, "load address -0x1 is not a 32-bit address"),
        ({"load_address": 1 << 32}, "not a 32-bit address"),
        ({"load_address": MEMORY_BYTES - 1}, "needs memory at 0xffffff-0x1000000"),
        ({"append": "quiet"}, "--append"),
        ({"bios": True, "load_address": 0x600}, "the BIOS starts what lies at 0x7c00"),
    ],
)
def test_a_flat_image_that_cannot_start_is_refused(
    options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(CODE, **options)


def test_an_image_larger_than_memory_is_refused_with_both_sizes() -> None:
    with pytest.raises(InputError, match=r"0x7c00-0x107bff, the machine has 1 MiB"):
        plan(bytes(MIB), memory_bytes=MIB)


# -- boot sectors -----------------------------------------------------------------------------


def test_a_boot_sector_starts_through_the_bios_at_the_reset_vector() -> None:
    boot = plan(boot_sector())
    assert boot.bios
    assert boot.start == RealStart(cs_selector=0xF000, cs_base=0xFFFF0000, ip=0xFFF0, edx=0x600)


def test_an_image_that_outgrew_its_sector_is_loaded_whole() -> None:
    data = boot_sector(3000)
    assert Segment(0x7C00, data) in plan(data).segments


def test_of_an_image_beyond_conventional_memory_the_first_sector_is_loaded() -> None:
    data = boot_sector(1440 << 10)
    assert Segment(0x7C00, data[:512]) in plan(data).segments


def test_the_bios_gets_a_copy_of_the_image_in_whole_sectors_at_the_top_of_memory() -> None:
    disk = plan(boot_sector(600)).disk_image
    assert disk == Segment(MEMORY_BYTES - 4096, boot_sector(600), 1024 - 600)


def test_the_bios_is_told_where_that_copy_is() -> None:
    boot = plan(boot_sector(600))
    assert boot.disk_image is not None
    assert bios_info_block(boot.disk_image.address, 600) in boot.segments


def test_memory_lists_the_disk_image_with_the_segments() -> None:
    boot = plan(boot_sector())
    assert list(boot.memory()) == [*boot.segments, boot.disk_image]


def test_a_machine_with_no_room_for_the_disk_image_is_refused_with_what_it_needs() -> None:
    with pytest.raises(InputError, match="give it at least 1028 KiB or leave out the BIOS"):
        plan(boot_sector(), memory_bytes=MIB)
    assert plan(boot_sector(), memory_bytes=1028 << 10).disk_image


def test_without_the_bios_a_boot_sector_starts_at_7c00() -> None:
    boot = plan(boot_sector(), bios=False)
    assert not boot.bios
    assert boot.disk_image is None
    assert boot.start == RealStart(cs_selector=0, cs_base=0, ip=0x7C00, sp=0x7C00, edx=0x80)


def test_a_flat_image_may_ask_for_the_bios() -> None:
    assert plan(CODE, bios=True).disk_image


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"load_address": 0x8000}, "a boot sector is loaded at 0x7c00, not at 0x8000"),
        ({"entry": 0x7C10}, "the BIOS enters a boot sector at 0x7c00, not at 0x7c10"),
        ({"append": "quiet"}, "--append"),
        ({"bios": False, "entry": 0x7E00}, "outside what is loaded"),
    ],
)
def test_a_boot_sector_takes_no_other_place(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(boot_sector(), **options)


# -- ROMs -------------------------------------------------------------------------------------


def test_a_rom_ends_at_4_gib_and_starts_at_the_reset_vector() -> None:
    boot = plan(rom(64 << 10))
    assert boot.rom is not None
    assert boot.rom.address == 0xFFFF0000
    assert boot.start == RealStart(cs_selector=0xF000, cs_base=0xFFFF0000, ip=0xFFF0, edx=0x600)
    assert boot.segments == ()


@pytest.mark.parametrize(
    ("size_bytes", "low_address"), [(4 << 10, 0xFF000), (256 << 10, 0xC0000), (MIB, 0xC0000)]
)
def test_a_rom_s_last_256_kib_are_copied_to_ram_below_1_mib(
    size_bytes: int, low_address: int
) -> None:
    boot = plan(rom(size_bytes))
    assert boot.rom is not None
    assert boot.rom.shadowed
    assert boot.rom.low_address == low_address
    assert boot.rom.low_data == rom(size_bytes)[-(MIB - low_address) :]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"load_address": 0xF0000}, "a ROM ends at 4 GiB"),
        ({"entry": 0xFFFF0}, "starts at the reset vector"),
        ({"append": "quiet"}, "a ROM receives none"),
        ({"bios": True}, "takes the place of the BIOS"),
    ],
)
def test_a_rom_takes_no_options(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plan(rom(), **options)


def test_a_rom_chosen_explicitly_needs_no_jump() -> None:
    assert plan(rom(opcode=0x90), kind="rom").rom is not None


# -- descriptions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "line"),
    [
        (
            CODE,
            {},
            "'image.bin': flat image, 2 bytes from 0x7c00, starts in real mode at 0000:7c00",
        ),
        (
            rom(4096),
            {},
            "'image.bin': rom image, 4096 bytes at 0xfffff000, starts in real mode at f000:fff0",
        ),
        (
            boot_sector(),
            {},
            "'image.bin': boot-sector image, 512 bytes from 0x7c00, starts through the BIOS",
        ),
    ],
)
def test_a_plan_describes_itself_in_a_line(
    data: bytes, options: dict[str, object], line: str
) -> None:
    assert plan(data, **options).describe() == line
