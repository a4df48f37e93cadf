"""The client platform's errors: one base class, so that one ``except`` catches them all."""

from __future__ import annotations

import errno as errnos
import os


class KvmshimError(Exception):
    """Base of every error that this package raises on purpose.

    Its text says what was tried, on what, why it failed and what to do.
    """


class InputError(KvmshimError, ValueError):
    """Something given by the user can't be used: an image, a machine file, a size, an option.

    Its text is one line.
    """


class HostError(KvmshimError, RuntimeError):
    """The host lacks something that running guests needs."""


class MisuseError(KvmshimError, RuntimeError):
    """A machine was asked for something at a time when it can't do it: run again after its end."""


class GuestError(KvmshimError, AssertionError):
    """A guest did not do what was wanted of it, by :meth:`kvmshim.RunResult.check`."""


class ServerError(KvmshimError, ConnectionError):
    """A device-model server can't be reached, refuses, or speaks another version."""


class KvmError(KvmshimError, OSError):
    """A KVM system call failed.

    ``call`` is its name (``KVM_CREATE_VM``), ``errno`` the error number; the text has the number's
    name and meaning.
    """

    def __init__(self, call: str, number: int, what: str) -> None:
        name = errnos.errorcode.get(number, str(number))
        super().__init__(number, f"{call} on {what} failed: {os.strerror(number)} ({name})")
        self.call = call

    def __str__(self) -> str:
        return str(self.strerror)


def printable(text: str) -> str:
    """Text of another's making, for one line: line ends and control characters written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
