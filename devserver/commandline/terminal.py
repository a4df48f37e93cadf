"""A person's terminal as a guest's: raw keys in, bytes out, and one key to leave by."""

from __future__ import annotations

import contextlib
import termios
from collections.abc import Iterator

#: Ctrl-], as in telnet: rarely meant for a guest.
ESCAPE = 0x1D
ESCAPE_NAME = "Ctrl-]"


@contextlib.contextmanager
def raw(fd: int, *, signals: bool = False) -> Iterator[None]:
    """Hands keys over one by one and unchanged while it lasts; restores the terminal after.

    ``signals``: Ctrl-C and the like go on sending signals. Output processing stays on, so that a
    guest's bare line feed starts a new line.
    """
    before = termios.tcgetattr(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = termios.tcgetattr(fd)
    iflag &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    lflag &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    if not signals:
        lflag &= ~termios.ISIG
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    changed = [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, changed)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it has hung up: there is nothing to restore
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
