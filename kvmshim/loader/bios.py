"""What the bundled BIOS (``guests/bios``) finds in memory: where its disk is."""

from __future__ import annotations

import struct

from kvmshim.loader.plan import Segment

#: The top KiB of conventional memory, which the BIOS makes its extended data area once it has read
#: the block. What is loaded for it ends below.
BIOS_INFO_ADDRESS = 0x9FC00
BIOS_INFO_MAGIC = b"KVSD"

_BLOCK = struct.Struct("<4sII")


def bios_info_block(address: int, length: int) -> Segment:
    """Tells the BIOS that its disk is the ``length`` bytes at guest-physical ``address``.

    The block is the magic, the address and the length, 32 bits each. The BIOS rounds the length up
    to sectors of 512 bytes, so zeros have to follow what is there.
    """
    return Segment(BIOS_INFO_ADDRESS, _BLOCK.pack(BIOS_INFO_MAGIC, address, length))
