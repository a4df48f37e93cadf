"""What the bundled BIOS finds in memory: the block that tells its INT 13h where the disk is."""

from __future__ import annotations

import struct

from kvmshim.loader.plan import Segment

BIOS_DATA_END = 0x9FC00
BIOS_INFO_ADDRESS = 0x9FC00
BIOS_INFO_MAGIC = b"KVSD"

_BLOCK = struct.Struct("<4sII")


def bios_info_block(address: int, length: int) -> Segment:
    """Tells the BIOS that its disk is the ``length`` bytes at guest-physical ``address``."""
    return Segment(BIOS_INFO_ADDRESS, _BLOCK.pack(BIOS_INFO_MAGIC, address, length))
