"""The Unicorn engine, as what runs guests on this host."""

from __future__ import annotations

from kvmshim.hypervisor.unicorn.engine import load_library
from kvmshim.hypervisor.unicorn.vm import UnicornVm


class UnicornHost:
    """The engine's library, which needs nothing of the host: neither KVM nor a capability."""

    def __init__(self) -> None:
        """Raises :class:`HostError` if it is not installed."""
        load_library()

    def require(self) -> None:
        """It has all that it needs once it is loaded."""

    def require_rom(self) -> None:
        """It has memory that a guest can't write to."""

    def create_vm(self) -> UnicornVm:
        """A VM. Raises :class:`HostError`."""
        return UnicornVm()

    def close(self) -> None:
        """Nothing is held."""
