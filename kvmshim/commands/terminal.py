"""What a guest reads from a person's terminal, and writes to it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import termios
from collections.abc import Iterator

from devserver.commandline.terminal import ESCAPE, ESCAPE_NAME
from devserver.commandline.terminal import raw as raw_while_it_lasts
from kvmshim import termination
from kvmshim.errors import HostError

__all__ = ["ESCAPE", "ESCAPE_NAME", "raw", "until_escape", "write_all"]


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """Hands keys over one by one while it lasts; the terminal is restored however that ends."""
    before = termios.tcgetattr(fd)
    with (
        termination.at_last(lambda: termios.tcsetattr(fd, termios.TCSANOW, before)),
        raw_while_it_lasts(fd),
    ):
        yield


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
