"""The block that tells the bundled BIOS where its disk is, as client and BIOS both have it."""

from __future__ import annotations

import re
from pathlib import Path

from images import boot_sector

from kvmshim.loader import Segment, bios_info_block, informed_bios, plan_image

BIOS = Path(__file__).parents[2] / "guests" / "bios" / "bios.asm"
VARIABLES = BIOS.with_name("variables.inc")


def constant(name: str) -> str:
    """The value that the BIOS's source gives a name."""
    found = re.search(rf"^{name}\s+equ\s+(\S+)", VARIABLES.read_text(), re.MULTILINE)
    assert found, f"{VARIABLES} defines no {name}"
    return found[1]


def test_the_block_is_magic_address_length_and_flags() -> None:
    block = bios_info_block(0x12345678, 600, screen=True)
    assert block == Segment(0x9FC00, b"KVSD\x78\x56\x34\x12\x58\x02\0\0\x01\0\0\0")


def test_the_rom_has_the_block_where_the_bios_looks_at_each_start() -> None:
    block = bios_info_block(0x1000, 512)
    rom = informed_bios(bytes(range(256)) * 256, block)
    found = re.search(r"^BIOS_INFO\s+equ\s+(\S+)", BIOS.read_text(), re.MULTILINE)
    assert found is not None
    at = int(found[1], 16)
    assert rom[at : at + 16] == block.data
    assert len(rom) == 1 << 16
    assert rom[:at] + rom[at + 16 :] == (bytes(range(256)) * 256)[:at] + bytes(range(208, 256))


def test_the_bios_looks_for_the_block_where_it_is_put() -> None:
    block = bios_info_block(0, 0)
    assert int(constant("EBDA"), 16) << 4 == block.address
    assert constant("INFO_MAGIC").strip('"').encode() == block.data[:4]
    offsets = [constant(f"EBDA_INFO_{field}") for field in ("MAGIC", "ADDRESS", "BYTES", "FLAGS")]
    assert [int(offset, 16) for offset in offsets] == [0, 4, 8, 12]


def test_what_is_loaded_whole_ends_where_the_block_begins() -> None:
    room = 0x9FC00 - 0x7C00
    for size_bytes, loaded_bytes in ((room, room), (room + 1, 512)):
        plan = plan_image(boot_sector(size_bytes), "disk", memory_bytes=16 << 20)
        assert len(plan.segments[0].data) == loaded_bytes
