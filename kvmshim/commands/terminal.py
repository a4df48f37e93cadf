"""The person's terminal as the guest's: raw keys in, bytes out, and one key to leave by."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import termios
from collections.abc import Iterator

from kvmshim.errors import HostError

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
        with contextlib.suppress(termios.error):  # it has hung up: there is nothing to restore
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def until_escape(data: bytes) -> bytes | None:
    """Keys for the guest, or None once the escape key was typed."""
    return None if ESCAPE in data else data


def write_all(data: bytes) -> None:
    """Writes to standard output at once and whole.

    Raises BrokenPipeError when nobody reads any more, HostError when it can't be written to.
    """
    fd = sys.stdout.fileno()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # whoever shares this terminal or pipe has made it so
            select.select([], [fd], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal that has hung up
                raise BrokenPipeError from error
            raise HostError(f"can't write to standard output: {error.strerror}") from error
