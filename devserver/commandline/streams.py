"""The standard streams of a command: closed, full or read by nobody, they make no traceback.

Python leaves ``sys.stdout`` None where the descriptor is closed, and gives that descriptor to the
next file or socket that is opened; what it prints then vanishes, or goes where it never should.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

_STREAMS = ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY))


class OutputError(Exception):
    """Standard output can't be written to; the message says why."""


class OutputGone(BrokenPipeError):
    """Nobody reads standard output any more."""


class _StandardOutput(io.FileIO):
    """Descriptor 1, whose errors can be told from those of any other file."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # EIO: a terminal that has hung up
                raise OutputGone(errno.EPIPE, os.strerror(errno.EPIPE)) from error
            raise OutputError(f"can't write to standard output: {error.strerror}") from error
        return written or 0


def prepare() -> None:
    """Makes the three streams fit to be used, whatever the parent process did with them.

    A closed one is put on /dev/null, the output so that writing to it fails as it would have.
    """
    for descriptor, flags in _STREAMS:
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest that is free: this one
            os.set_inheritable(os.open(os.devnull, flags), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if sys.stdout is None or (sys.stdout is sys.__stdout__ and _fileno(sys.stdout) == 1):
        sys.stdout = _standard_output(sys.stdout)


def forget_output() -> None:
    """Standard output takes no more: Python must not meet that again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _fileno(sys.stdout))


def _standard_output(before: Any) -> io.TextIOWrapper:
    raw = _StandardOutput(1, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", "utf-8"),
        errors="backslashreplace",  # a file's name that is no text of this locale
        line_buffering=raw.isatty(),
        write_through=getattr(before, "write_through", False),
    )


def _fileno(stream: Any) -> int:
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):  # a test's own
        return 1
