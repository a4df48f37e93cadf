"""The numbered messages of a client."""

from __future__ import annotations

from typing import NamedTuple


class Request(NamedTuple):
    """An access that the guest waits for.

    ``size`` is the element's (1, 2, 4 or 8 bytes), ``elements`` their number (string I/O
    has more than one); ``data`` has ``size * elements`` bytes if the direction is OUT, else none.
    Answered by a FEEDBACK (IN) or a FINISH (OUT).
    """

    seq: int
    ack: int
    server_id: int
    vm_id: int
    hypervisor: int
    client_id: int
    device_id: int
    direction: int
    space: int
    address: int
    size: int
    elements: int
    time_ns: int
    data: bytes


class Write(NamedTuple):
    """One posted access in a batch: a write, or a read that the client answered from a lease.

    Such a read is done for what it causes; its ``value`` is 0 and its answer is dropped.
    """

    device_id: int
    direction: int
    space: int
    address: int
    size: int
    time_ns: int
    value: int


class Batch(NamedTuple):
    """Posted accesses in program order. Never answered, only acknowledged."""

    seq: int
    ack: int
    server_id: int
    vm_id: int
    hypervisor: int
    client_id: int
    writes: tuple[Write, ...]


class Feed(NamedTuple):
    """Bytes from the world for a device's input channel; ``end`` says that none will follow."""

    seq: int
    ack: int
    server_id: int
    vm_id: int
    hypervisor: int
    client_id: int
    device_id: int
    channel: int
    end: int
    time_ns: int
    data: bytes


class Clock(NamedTuple):
    """VM time is ``time_ns`` now, and runs from here on or stands still."""

    seq: int
    ack: int
    server_id: int
    vm_id: int
    hypervisor: int
    client_id: int
    running: int
    time_ns: int


class Detach(NamedTuple):
    """The VM has ended, and its devices go with it; or, with ``keep``, they wait for an adopter."""

    seq: int
    ack: int
    server_id: int
    vm_id: int
    hypervisor: int
    client_id: int
    keep: int
    time_ns: int


class Save(NamedTuple):
    """Asks for a device's state; ``remove``: the VM has the device no longer.

    Answered by a STATE.
    """

    seq: int
    ack: int
    server_id: int
    vm_id: int
    hypervisor: int
    client_id: int
    device_id: int
    remove: int
    time_ns: int


class Add(NamedTuple):
    """Asks for a further device; ``data`` is a WantedDevice. Answered by an ADDED."""

    seq: int
    ack: int
    server_id: int
    vm_id: int
    hypervisor: int
    client_id: int
    time_ns: int
    data: bytes
