"""How errors are put into words for people."""

from __future__ import annotations


def in_one_line(error: BaseException) -> str:
    """An exception's class and what it says, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
