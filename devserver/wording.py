"""How errors are put into words for people."""

from __future__ import annotations


def in_one_line(error: BaseException) -> str:
    """An exception's class and what it says, without line breaks."""
    try:
        said = " ".join(str(error).split())
    except BaseException:  # whoever wrote the exception may have got even that wrong
        said = "(an exception that can't be printed)"
    return f"{type(error).__name__}: {said}".removesuffix(": ")
