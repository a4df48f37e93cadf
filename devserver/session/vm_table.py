"""Which VMs have devices here: those that are attached, and those left behind for an adopter.

A VM that moves from one client platform to another leaves its devices where they are: the old
client detaches with ``keep``, the new one attaches with the key that the VM was given. While nobody
is attached VM time stands, so the devices do nothing.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import NamedTuple

from devserver.machine.bus import Bus
from devserver.machine.message_bus import MessageBus
from devserver.protocol.errors import ErrorCode, RemoteProtocolError

#: Devices that were left behind and not adopted go after so long.
DEFAULT_KEEP_NS = 60_000_000_000


def random_key() -> str:
    """What an adopter has to show; not to be guessed."""
    return secrets.token_hex(16)


class DetachedVm(NamedTuple):
    """A VM's devices without a client."""

    bus: Bus
    key: str
    until_ns: int


class VmTable:
    """The VMs of one device host, by identifier."""

    def __init__(
        self,
        allot_id: Callable[[], int],
        keep_ns: int = DEFAULT_KEEP_NS,
        make_key: Callable[[], str] = random_key,
        message_bus: MessageBus | None = None,
    ) -> None:
        self.make_key = make_key
        #: Where their devices meet.
        self.message_bus = message_bus or MessageBus()
        self._allot_id = allot_id
        self._keep_ns = keep_ns
        self._names: dict[int, str] = {}
        self._left: dict[int, DetachedVm] = {}

    def add(self, vm_id: int, name: str) -> int:
        """A VM attaches, under an identifier of its own or (0) one that is given to it.

        Raises :class:`RemoteProtocolError` if another VM has the identifier.
        """
        if vm_id in self._names:
            raise RemoteProtocolError(
                ErrorCode.IDENTITY,
                f"VM {vm_id} ('{self._names[vm_id]}') has its devices here already; a VM runs "
                f"once, so shut the other one down or give this one another identifier",
            )
        while not vm_id or vm_id in self._names:
            vm_id = self._allot_id()
        self._names[vm_id] = name
        return vm_id

    def remove(self, vm_id: int) -> None:
        """A VM has ended, or its client is lost."""
        self._names.pop(vm_id, None)
        left = self._left.pop(vm_id, None)
        if left is not None:
            left.bus.vm_port.leave()

    def detach(self, vm_id: int, key: str, bus: Bus, now_ns: int) -> None:
        """A VM's client goes, and its devices wait for the next one."""
        self._left[vm_id] = DetachedVm(bus, key, now_ns + self._keep_ns)

    def adopt(self, vm_id: int, key: str) -> Bus:
        """The devices that a VM has left behind; raises :class:`RemoteProtocolError`."""
        left = self._left.get(vm_id)
        if left is None or not hmac.compare_digest(left.key.encode(), key.encode(errors="replace")):
            raise RemoteProtocolError(
                ErrorCode.IDENTITY,
                f"VM {vm_id} has left no devices here under this key; they are kept for "
                f"{self._keep_ns / 1e9:.0f} s",
            )
        del self._left[vm_id]
        return left.bus

    def expire(self, now_ns: int) -> list[int]:
        """Drops devices that nobody came for; the VMs whose they were."""
        late = [vm_id for vm_id, left in self._left.items() if left.until_ns <= now_ns]
        for vm_id in late:
            self.remove(vm_id)
        return late

    def next_expiry_ns(self) -> int | None:
        """When :meth:`expire` has something to do, by CLOCK_MONOTONIC."""
        return min((left.until_ns for left in self._left.values()), default=None)
