"""One folder for all temporary files of a process, so that none can stay behind alone."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """While it lasts, what :mod:`tempfile` makes is in a folder of this process's own.

    It is removed at the end, with all that is in it.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before
