"""Reads a file that the user named, or says in one line why that can't be done."""

from __future__ import annotations

import stat
from pathlib import Path

from kvmshim.errors import InputError
from kvmshim.units import format_size


def read_file(path: Path, tried: str, limit_bytes: int, over: str) -> bytes:
    """The bytes of the regular file ``path``.

    Raises :class:`InputError`: ``tried`` says what can't be done with it ('cannot boot'). A file
    above ``limit_bytes`` is not read; ``over`` says why that is too much and what to do.
    """
    try:
        status = path.stat()  # before opening: opening a pipe that nobody writes to would hang
        if stat.S_ISREG(status.st_mode) and status.st_size <= limit_bytes:
            return path.read_bytes()
        if stat.S_ISDIR(status.st_mode):
            problem = "it is a directory; give a file"
        elif not stat.S_ISREG(status.st_mode):
            problem = "it is not a regular file; copy its content to one"
        else:
            problem = f"it has {format_size(status.st_size)}, {over}"
    except FileNotFoundError:
        problem = "there is no such file; check the path"
    except PermissionError:
        problem = "this user may not read it; change its permissions"
    except OSError as error:
        problem = f"it cannot be read ({error.strerror}); check the path"
    except ValueError as error:
        problem = f"it cannot be read ({error}); check the path"
    raise InputError(f"{tried} {str(path)!r}: {problem}")
