"""What a program can see of a machine beside its output: memory, models, states of devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devserver.machine.device_state import state_of
from devserver.models.device import Device
from devserver.protocol.messages import AttachedDevice
from kvmshim.errors import InputError
from kvmshim.hypervisor.guest_memory import GuestMemory
from kvmshim.remote.link import Link

if TYPE_CHECKING:
    from kvmshim.vmm.local import LocalDevices


@dataclass(frozen=True)
class View:
    """A machine's memory, and its devices with their owners."""

    memory: GuestMemory
    devices: Sequence[tuple[Link | LocalDevices, AttachedDevice]]

    def read_memory(self, address: int, length: int) -> bytes:
        """What the guest sees at a physical address. Raises :class:`InputError` outside memory."""
        data = b""
        while len(data) < length:
            part = self.memory.visible(address + len(data), length - len(data))
            if not part:
                raise InputError(f"the machine has no memory at {address + len(data):#x}")
            data += part
        return data

    def model(self, name: str) -> Device:
        """The model of a device that runs in this process. Raises :class:`InputError`."""
        owner, attached = self.find(name)
        if isinstance(owner, Link):
            raise InputError(
                f"device '{name}' runs on a server; place it locally to have its model, or look at "
                "its state"
            )
        return owner.model(attached.device_id)

    def state(self, name: str, time_ns: int) -> dict[str, Any]:
        """A device's state at a VM time, as its model declares it; the machine is paused."""
        owner, attached = self.find(name)
        return state_of(owner.save_one(attached.device_id, time_ns))

    def find(self, name: str) -> tuple[Link | LocalDevices, AttachedDevice]:
        """Where a device is, and what it has. Raises :class:`InputError`."""
        for owner, attached in self.devices:
            if attached.name == name:
                return owner, attached
        names = ", ".join(attached.name for _, attached in self.devices) or "none"
        raise InputError(f"the machine has no device '{name}'; it has {names}")
