"""Guests of a few bytes, written down as the processor's own (flat images for 7C00h)."""

from __future__ import annotations

COM1 = 0x3F8
LINE_STATUS = COM1 + 5
EXIT_PORT = 0xF4
#: Where nothing of the PC's board is: for a test's own device.
OWN_PORT = 0x500

#: Halts with interrupts off.
HALT = b"\xfa\xf4"
#: Goes round for ever without leaving the guest.
SPIN = b"\xeb\xfe"


def _port(port: int) -> bytes:
    return b"\xba" + port.to_bytes(2, "little")  # mov dx, port


def read(port: int) -> bytes:
    """Reads a port into AL."""
    return _port(port) + b"\xec"


def write(port: int, value: int) -> bytes:
    """Writes a byte to a port."""
    return b"\xb0" + bytes([value]) + _port(port) + b"\xee"


def say(text: bytes) -> bytes:
    """Prints on the first serial line, without asking whether there is room."""
    return b"".join(write(COM1, byte) for byte in text)


def leave(status: int) -> bytes:
    """Ends the guest with this exit status."""
    return write(EXIT_PORT, status)


def leave_with_al() -> bytes:
    """Ends the guest; what was read last is the exit status."""
    return _port(EXIT_PORT) + b"\xee"


def for_ever(code: bytes) -> bytes:
    """Does ``code``, at most 126 bytes of it, over and over."""
    return code + b"\xeb" + (-len(code) - 2 & 0xFF).to_bytes()
