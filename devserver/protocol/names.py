"""What clients, servers and VMs may be called."""

from __future__ import annotations

MAX_NAME = 64
#: Words that stand for a place where a device runs.
PLACES = ("auto", "local", "server")


class BadName(ValueError):
    """A name that nothing may have; the message says why and what to do."""


def check_name(what: str, name: str) -> str:
    """``name``, if a thing (``what``) may be called so. Raises :class:`BadName`.

    A number stands for the thing with that number; a command line takes a dash for an option; and
    names go into tables and logs, a line each.
    """
    why = _fault(name)
    if why:
        raise BadName(f"{what} can't be named {_shown(name)}: {why}; choose another name")
    return name


def check_server_name(name: str) -> str:
    """The same for a server's, which also says where a device runs."""
    if name in PLACES:
        raise BadName(
            f"a server can't be named '{name}': the word stands for a place where devices run; "
            f"choose another name"
        )
    return check_name("a server", name)


def _fault(name: str) -> str:
    if not name:
        return "a name has at least one character"
    if len(name) > MAX_NAME:
        return f"it has {len(name)} characters, and a name has at most {MAX_NAME}"
    if not name.isprintable():
        return "it has characters that can't be shown"
    if name != name.strip():
        return "it begins or ends with a space"
    if name.startswith("-"):
        return "it begins with a dash, as options do"
    if name.isnumeric():
        return "it is a number"
    return ""


def _shown(name: str) -> str:
    whole = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    return f"'{''.join(c if c.isprintable() else ascii(c)[1:-1] for c in whole)}'"
