"""The person's terminal as the guest's: raw keys in, bytes out, and one key to leave by."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Iterator

#: Ctrl-], as in telnet: rarely meant for a guest.
ESCAPE = 0x1D
ESCAPE_NAME = "Ctrl-]"


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """Hands keys over one by one and unchanged while it lasts; restores the terminal after.

    Output processing stays on, so that a guest's bare line feed starts a new line.
    """
    before = termios.tcgetattr(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = termios.tcgetattr(fd)
    iflag &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    lflag &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    changed = [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, changed)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def until_escape(data: bytes) -> bytes | None:
    """Keys for the guest, or None once the escape key was typed."""
    return None if ESCAPE in data else data


def write_all(data: bytes) -> None:
    """Writes to standard output at once and whole; raises BrokenPipeError when nobody reads."""
    fd = sys.stdout.fileno()
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
