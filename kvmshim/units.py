"""Sizes as people write them: ``16M``, ``64KiB``, ``0x7c00``, ``512``."""

from __future__ import annotations

import re

from kvmshim.errors import InputError

_SHIFTS = {"": 0, "k": 10, "kib": 10, "m": 20, "mib": 20, "g": 30, "gib": 30}
_DECIMAL = re.compile(r"([0-9]{1,20})\s*(|[kmg]|[kmg]ib)", re.IGNORECASE)
_HEX = re.compile(r"0x[0-9a-f]{1,16}", re.IGNORECASE)


def parse_size(size: str | int) -> int:
    """The number of bytes (or the address) that ``size`` stands for.

    Text is a decimal number with an optional K, M, G, KiB, MiB or GiB (powers of 1024, in either
    case), or a hexadecimal number that begins with 0x. Raises :class:`InputError` for anything
    else, negative numbers included.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 0:
            raise InputError(f"size {size} is negative; give a number such as 512 or 16M")
        return size
    if isinstance(size, str):
        text = size.strip()
        if _HEX.fullmatch(text):
            return int(text, 16)
        if decimal := _DECIMAL.fullmatch(text):
            return int(decimal[1]) << _SHIFTS[decimal[2].lower()]
    raise InputError(
        f"{size!r:.60} is not a size; write a number of bytes such as 512, 0x7c00, 64K, 16M or 1GiB"
    )


def format_size(size_bytes: int) -> str:
    """``size_bytes`` for people: in the largest binary unit that divides it, else in bytes."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift} {unit}"
    return f"{size_bytes} byte{'' if size_bytes == 1 else 's'}"
