"""A device that goes to live elsewhere, while its machine is paused.

The order is: taken from where it is, with its state and the input that waits for it; put where it
is to be; and if that fails, put back. Nothing of the guest is under way meanwhile, so no access is
lost or made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from devserver.protocol.messages import AttachedDevice, WantedDevice
from kvmshim.errors import InputError, KvmshimError
from kvmshim.remote.link import Link
from kvmshim.vmstate.state import PendingInput

if TYPE_CHECKING:
    from kvmshim.vmm.local import LocalDevices

Owner: TypeAlias = "Link | LocalDevices"


@dataclass(frozen=True)
class Destination:
    """Where a device is to run: a server, or (``server_id`` 0) this client platform.

    ``place`` is what a machine file calls it. ``address`` is where a server is reached; empty:
    through the owner.
    """

    server_id: int = 0
    name: str = "local"
    address: str = ""
    place: str = "local"


@dataclass(frozen=True)
class Taken:
    """A device between two places."""

    wanted: WantedDevice
    inputs: Sequence[PendingInput]
    time_ns: int


def move_device(
    device: AttachedDevice,
    wanted: WantedDevice,
    source: Owner,
    reach: Callable[[Taken], Owner],
    time_ns: int,
) -> Owner:
    """Moves a device to the owner that ``reach`` gives, where it is made from what was taken.

    Raises what ``reach`` raises, with the device where it was; the owner that has it at the end.
    """
    inputs = [pending for pending in source.pending_inputs() if pending.device == device.name]
    state = source.save_one(device.device_id, time_ns, remove=True)
    taken = Taken(replace(wanted, state=state, placement=""), inputs, time_ns)
    try:
        owner = reach(taken)
    except KvmshimError as error:
        put(source, taken)
        raise InputError(f"device '{device.name}' stays where it is: {error}") from error
    owner.put_back_inputs(inputs, time_ns)
    return owner


def put(owner: Owner, taken: Taken) -> None:
    """Makes a device that was taken at an owner that has other devices already."""
    owner.add(taken.wanted, taken.time_ns)
    owner.put_back_inputs(taken.inputs, taken.time_ns)
