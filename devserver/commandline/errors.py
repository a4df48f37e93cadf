"""Why a command fails, in one line."""

from __future__ import annotations


class CommandError(Exception):
    """A command that failed; the message says why."""


class InputError(CommandError):
    """Something that the command was given can't be used."""
