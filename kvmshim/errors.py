"""The client platform's errors: one base class, so that one ``except`` catches them all."""

from __future__ import annotations


class KvmshimError(Exception):
    """Base of every error that this package raises on purpose.

    Its text says what was tried, on what, why it failed and what to do.
    """


class InputError(KvmshimError, ValueError):
    """Something given by the user can't be used: an image, a machine file, a size, an option.

    Its text is one line.
    """
