"""A client with a session at hand: what it asks, what it is told, with no socket between them."""

from __future__ import annotations

import itertools
from typing import Any

import trial_device
from trial_device import SIZE

from devserver.identity import Identity
from devserver.protocol.connection import Connection, Role, blank
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import (
    Attach,
    Attached,
    Batch,
    Clock,
    Direction,
    Error,
    Feed,
    Hello,
    Hypervisor,
    Message,
    Request,
    WantedDevice,
    Write,
)
from devserver.session.session import Session
from devserver.session.vm_table import VmTable

BASE = 0x100
IRQ_LINE, OTHER_LINE = 5, 6

TRIAL = WantedDevice(
    "trial", trial_device.KIND, {"io": BASE}, {"irq": IRQ_LINE, "other": OTHER_LINE}
)
SECOND = WantedDevice("second", trial_device.KIND, {"io": BASE + SIZE}, {"irq": IRQ_LINE})


def request(direction: Direction, address: int, **fields: Any) -> Request:
    """A request for one byte of device 1, unless ``fields`` say otherwise."""
    byte = {"device_id": 1, "size": 1, "elements": 1, "data": b""}
    return blank(Request, **{**byte, "direction": direction, "address": address, **fields})


#: What every VM is given to show when it comes for its devices.
KEY = "the key"


def read(offset: int, size: int = 1, **fields: Any) -> Request:
    """An IN from a register of the trial device."""
    return request(Direction.IN, BASE + offset, size=size)._replace(**fields)


def write(offset: int, value: int, size: int = 1, **fields: Any) -> Request:
    """An OUT to a register of the trial device."""
    data = value.to_bytes(size, "little")
    return request(Direction.OUT, BASE + offset, size=size, **{"data": data, **fields})


def posted(offset: int, *values: int, time_ns: int = 0) -> Batch:
    """A batch of byte writes to one register of the trial device."""
    writes = (Write(1, 1, 0, BASE + offset, 1, time_ns, value) for value in values)
    return blank(Batch, writes=tuple(writes))


def feed(data: bytes, **fields: int) -> Feed:
    """Bytes for the trial device's channel 'in'."""
    return blank(Feed, **{"device_id": 1, "data": data, **fields})


class Rig:
    """A session and its client. ``now_ns`` is the server's monotonic clock."""

    def __init__(self, identity: Identity | None = None, vms: VmTable | None = None) -> None:
        """``vms`` are those of a host that has further sessions."""
        allot_id = itertools.count(1).__next__
        vms = vms or VmTable(allot_id, make_key=lambda: KEY)
        self.session = Session(identity or Identity(), allot_id, "a client", vms)
        self.client = Connection(Role.CLIENT)
        self.now_ns = 10**9

    def say(self, *messages: Message) -> list[Message]:
        """Sends messages in one frame; returns what the server says."""
        return self.carry(self.client.send(*messages))

    def carry(self, data: bytes) -> list[Message]:
        """Gives the session bytes; returns what it says."""
        return self.client.receive(self.session.receive(data, self.now_ns))

    def advance(self, by_ns: int) -> list[Message]:
        """Lets time pass, and devices do what is due; returns what the server says."""
        self.now_ns += by_ns
        return self.client.receive(self.session.advance(self.now_ns))

    def attach(self, *devices: WantedDevice, **fields: Any) -> list[Message]:
        """The handshake up to the answer to ATTACH."""
        self.say(Hello())
        return self.say(Attach(Hypervisor.KVM, devices=list(devices), **fields))

    def clock(self, time_ns: int = 0, running: int = 1) -> list[Message]:
        return self.say(blank(Clock, running=running, time_ns=time_ns))


def attached(*devices: WantedDevice, identity: Identity | None = None) -> Rig:
    """A rig whose VM has got its devices (the trial device, if none are named)."""
    rig = Rig(identity)
    answer = rig.attach(*(devices or (TRIAL,)))
    assert isinstance(answer[0], Attached)
    return rig


def error_of(said: list[Message], code: ErrorCode) -> str:
    """The text of the ERROR that is all that was said."""
    (error,) = said
    assert isinstance(error, Error)
    assert error.code == code
    assert "\n" not in error.message
    return error.message
