"""What a guest reads from a person's terminal."""

from __future__ import annotations

import contextlib
import termios
from collections.abc import Iterator

from devserver.commandline.terminal import ESCAPE, ESCAPE_NAME
from devserver.commandline.terminal import raw as raw_while_it_lasts
from kvmshim import termination

__all__ = ["ESCAPE", "ESCAPE_NAME", "raw", "until_escape"]


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
