"""What a guest has left in the memory of a PC's text screen, which no device here shows.

Source: IBM PC/AT Technical Reference, colour/graphics monitor adapter: from B8000h on, a character
and its attribute for each place, 80 to a line, 25 lines. The characters are code page 437.
"""

from __future__ import annotations

from kvmshim.hypervisor.guest_memory import GuestMemory
from kvmshim.loader import BootPlan

_ADDRESS = 0xB_8000
_COLUMNS, _LINES = 80, 25
_BYTES = 2 * _COLUMNS * _LINES
#: So many of the last lines are kept.
_KEPT = 8


def read_screen(physical: GuestMemory, plan: BootPlan) -> list[str]:
    """The last lines of text there; none if it is blank, or the image itself lies there."""
    end = _ADDRESS + _BYTES
    if any(part.address < end and part.end > _ADDRESS for part in plan.memory()):
        return []
    try:
        memory = physical.read(_ADDRESS, _BYTES)
    except ValueError:
        return []
    text = memory[::2].replace(b"\0", b" ").decode("cp437")
    rows = [text[at : at + _COLUMNS].rstrip() for at in range(0, len(text), _COLUMNS)]
    written = [_printable(row) for row in rows if row]
    return written[-_KEPT:]


def _printable(row: str) -> str:
    return "".join(c if c.isprintable() else "." for c in row)
