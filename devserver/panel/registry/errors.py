"""What can go wrong with the registry; each error is one line that says what to do."""

from __future__ import annotations

from devserver.rpc import RpcError


class RegistryError(RpcError):
    """The registry cannot do what it was asked to."""


class Unreachable(RegistryError):
    """The database cannot be opened or connected to."""


class Locked(RegistryError):
    """Someone else held the database for longer than we wait."""


class WrongSchema(RegistryError):
    """The database is of an older or a newer version of this program, or of another one."""


class Taken(RegistryError):
    """A name, or a VM, is somebody else's."""


class Uncertain(RegistryError):
    """The database was lost while it wrote: it has all of it or nothing."""
