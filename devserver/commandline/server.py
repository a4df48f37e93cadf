"""Which server a command is for: its option says so, or else the environment."""

from __future__ import annotations

import os

from devserver.commandline.errors import InputError
from devserver.protocol.address import AddressError, parse_address

#: Where the server is, unless the command line says so.
SERVER_VARIABLE = "KVMSHIM_SERVER"


def server_of(option: str | None) -> str | None:
    """The address in ``--server``, else in KVMSHIM_SERVER; None if there is neither.

    Raises :class:`InputError` that blames the right one of them.
    """
    said, origin = option, "--server"
    if said is None:
        said, origin = os.environ.get(SERVER_VARIABLE) or None, SERVER_VARIABLE
    if said is None:
        return None
    try:
        parse_address(said)
    except AddressError as error:
        raise InputError(f"{origin}: {error}") from None
    return said
