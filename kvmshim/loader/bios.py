"""What the bundled BIOS (``guests/bios``) is told: its disk, and if there is a screen."""

from __future__ import annotations

import struct
from enum import IntFlag

from kvmshim.loader.plan import Segment

#: The top KiB of conventional memory, which the BIOS makes its extended data area once it has read
#: the block. What is loaded for it ends below.
BIOS_INFO_ADDRESS = 0x9FC00
BIOS_INFO_MAGIC = b"KVSD"
#: Where the ROM has the same block: there the BIOS finds it again at every restart.
BIOS_INFO_ROM_OFFSET = 0xFFC0

_BLOCK = struct.Struct("<4sIII")


class BiosFlags(IntFlag):
    """What else the block says."""

    SCREEN = 0x01  # the output is a terminal that understands control sequences


def bios_info_block(address: int, length: int, *, screen: bool = False) -> Segment:
    """Tells the BIOS that its disk is the ``length`` bytes at guest-physical ``address``.

    The block is the magic, the address, the length and the flags, 32 bits each. The BIOS rounds
    the length up to sectors of 512 bytes, so zeros have to follow what is there.
    """
    flags = BiosFlags.SCREEN if screen else 0
    return Segment(BIOS_INFO_ADDRESS, _BLOCK.pack(BIOS_INFO_MAGIC, address, length, flags))


def informed_bios(image: bytes, information: Segment) -> bytes:
    """The BIOS's ROM image with the block in it."""
    end = BIOS_INFO_ROM_OFFSET + len(information.data)
    return image[:BIOS_INFO_ROM_OFFSET] + information.data + image[end:]
