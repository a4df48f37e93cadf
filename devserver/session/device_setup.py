"""From what a client asks for to a bus: devices made, restored, added, taken away."""

from __future__ import annotations

import dataclasses

import msgpack

from devserver.machine.board import DeviceWiring
from devserver.machine.bus import BoardError, Bus, DeviceFault, Sink
from devserver.machine.device_state import load_device, save_device
from devserver.machine.inventory import describe_slot
from devserver.machine.message_bus import MessageBus, VmPort
from devserver.models.device import StateError
from devserver.plain import PlainError, from_plain
from devserver.protocol import limits
from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.messages import Add, Attach, Save, Status, WantedDevice
from devserver.wording import in_one_line


def build(attach: Attach, sink: Sink, message_bus: MessageBus) -> Bus:
    """The devices of a VM; raises :class:`RemoteProtocolError` if they can't be made."""
    vm_port = VmPort(message_bus, attach.vm_name)
    if len(attach.devices) > limits.MAX_DEVICES:
        raise RemoteProtocolError(
            ErrorCode.MACHINE, f"at most {limits.MAX_DEVICES} devices can be attached"
        )
    try:
        bus = Bus(list(map(wiring_of, attach.devices)), sink, attach.epoch_ns, vm_port)
        for device_id, wanted in enumerate(attach.devices, start=1):
            if wanted.state:
                load_device(bus, device_id, wanted.state)
    except (BoardError, DeviceFault, StateError) as error:
        vm_port.leave()
        raise RemoteProtocolError(ErrorCode.MACHINE, str(error)) from error
    return bus


def wiring_of(wanted: WantedDevice) -> DeviceWiring:
    """A device in the words of a board."""
    return DeviceWiring(
        name=wanted.name,
        kind=wanted.kind,
        bases=wanted.bases,
        lines=wanted.lines,
        options=wanted.options,
        policies=wanted.policies,
    )


def save(bus: Bus, save: Save) -> tuple[Status, bytes]:
    """Answers a SAVE: the status, and the device's state or what is wrong.

    Raises :class:`DeviceFault`.
    """
    if save.device_id not in bus.slots:
        return Status.NO_DEVICE, f"device {save.device_id} is not there".encode()
    try:
        state = save_device(bus, save.device_id)
    except StateError as error:
        return Status.REFUSED, str(error).encode()
    if save.remove:
        bus.remove(save.device_id)
    return Status.OK, state


def add(bus: Bus, add: Add, latest_ns: int) -> tuple[Status, bytes]:
    """Answers an ADD: the status, and the device in the protocol's words or what is wrong.

    What it begins with must not be of a VM time above ``latest_ns``, for the others would have to
    live through all that lies between.
    """
    try:
        plain = msgpack.unpackb(add.data, strict_map_key=True)
        wanted: WantedDevice = from_plain(WantedDevice, plain, "ADD", lenient=True)
    except (PlainError, ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(ErrorCode.MALFORMED, f"ADD: {in_one_line(error)}") from None
    try:
        if len(bus.slots) >= limits.MAX_DEVICES:
            raise BoardError(f"at most {limits.MAX_DEVICES} devices can be attached")
        slot = bus.add(wiring_of(wanted))
    except (BoardError, DeviceFault) as error:
        return Status.REFUSED, str(error).encode()
    try:
        if wanted.state:
            load_device(bus, slot.device_id, wanted.state, latest_ns)
    except StateError as error:
        bus.remove(slot.device_id)
        return Status.REFUSED, str(error).encode()
    described = dataclasses.asdict(describe_slot(bus, slot))
    return Status.OK, msgpack.packb(described)
