"""Every message, its fields in wire order, and how wide each one is.

**Numbered messages** (requests, feedbacks, interrupts and the like) change the state of the other
end. They carry a sequence number, count up from 1 in each direction, and are *fixed-width*: every
integer has one msgpack encoding, so every field has a constant offset and a C program can treat
the bytes as a packed struct. **Session messages** set a conversation up and keep it alive.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from devserver.protocol.fields import (
    FIELDS,
    TAIL_LIMITS,
    TERM_FIELDS,
    WRITE_FIELDS,
    AddressSpace,
    Direction,
    EventKind,
    FieldKind,
    Hypervisor,
    LeaseRule,
    MessageType,
    Status,
)
from devserver.protocol.from_client import (
    Add,
    Batch,
    Clock,
    Detach,
    Feed,
    Request,
    Save,
    Write,
)
from devserver.protocol.greetings import (
    Attach,
    Attached,
    AttachedDevice,
    AttachedRegion,
    Busy,
    Elsewhere,
    Error,
    Hello,
    Join,
    PolicyRange,
    WantedDevice,
    Welcome,
)

__all__ = [
    "FIELDS",
    "FIXED_CLASSES",
    "SESSION_CLASSES",
    "TAIL_LIMITS",
    "TERM_FIELDS",
    "TYPE_OF",
    "WRITE_FIELDS",
    "Ack",
    "Add",
    "Added",
    "AddressSpace",
    "Attach",
    "Attached",
    "AttachedDevice",
    "AttachedRegion",
    "Batch",
    "Busy",
    "Clock",
    "Consumed",
    "Detach",
    "Direction",
    "Elsewhere",
    "Emit",
    "Error",
    "Event",
    "EventKind",
    "Feed",
    "Feedback",
    "FieldKind",
    "Finish",
    "FromClient",
    "FromServer",
    "Hello",
    "Hypervisor",
    "Interrupt",
    "Join",
    "Lease",
    "LeaseRule",
    "Message",
    "MessageType",
    "Numbered",
    "Ping",
    "PolicyRange",
    "Pong",
    "Request",
    "Save",
    "SessionMessage",
    "State",
    "Status",
    "Term",
    "WantedDevice",
    "Welcome",
    "Write",
]


# -- fixed-width messages ---------------------------------------------------------------------


class Ping(NamedTuple):
    """Asks for a sign of life; answered by a PONG with the same token."""

    token: int


class Pong(NamedTuple):
    """Answers a PING; acknowledges like an ACK."""

    token: int
    ack: int


class Ack(NamedTuple):
    """Everything up to sequence number ``ack`` has been received and applied."""

    ack: int


class Feedback(NamedTuple):
    """The answer of an IN.

    ``data`` has ``size * elements`` bytes, or none if the status is not OK.
    """

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    request: int
    status: int
    data: bytes


class Finish(NamedTuple):
    """An OUT has been applied."""

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    request: int
    status: int


class Interrupt(NamedTuple):
    """An interrupt line is at ``level`` now; ``number`` counts the changes of this line."""

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    line: int
    level: int
    number: int


class Emit(NamedTuple):
    """Bytes that a device sends to the world through its output channel."""

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    device_id: int
    channel: int
    data: bytes


class Consumed(NamedTuple):
    """A device has taken ``total`` bytes of its input channel so far."""

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    device_id: int
    channel: int
    total: int


class Event(NamedTuple):
    """Something that concerns the whole VM."""

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    device_id: int
    kind: int
    value: int
    text: str


class Term(NamedTuple):
    """One summand of a leased function of VM time; all arithmetic is modulo 2**64.

    With ``n = time_ns * num // den - origin`` (modulo ``period``, unless that is 0) it is
    ``v = start + step * n`` while ``n < length``, then ``v = start2 + step2 * (n - length)``.
    To the lease it contributes ``(v & wrap) >> shift & mask``.
    """

    num: int
    den: int
    origin: int
    period: int
    length: int
    start: int
    step: int
    start2: int
    step2: int
    wrap: int
    shift: int
    mask: int


class Lease(NamedTuple):
    """What a read of one byte at ``address`` gives from now on, so that the client can answer it.

    ``rule`` holds :class:`LeaseRule` flags and, in its low three bytes, the lane, mask and match of
    a hold; ``unaffected`` and ``steady`` have one bit for each lane of the device.
    """

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    device_id: int
    space: int
    address: int
    rule: int
    value: int
    until_ns: int
    unaffected: int
    steady: int
    terms: tuple[Term, ...]


class State(NamedTuple):
    """A device's snapshot, msgpack for whoever makes such a device again.

    If the status is not OK, ``data`` is text that says why.
    """

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    request: int
    status: int
    data: bytes


class Added(NamedTuple):
    """The device is there; ``data`` is an AttachedDevice, or text if the status is not OK."""

    seq: int
    applied: int
    vm_id: int
    hypervisor: int
    client_id: int
    request: int
    status: int
    data: bytes


FIXED_CLASSES: dict[MessageType, type[Any]] = {
    MessageType.PING: Ping,
    MessageType.PONG: Pong,
    MessageType.ACK: Ack,
    MessageType.REQUEST: Request,
    MessageType.BATCH: Batch,
    MessageType.FEED: Feed,
    MessageType.CLOCK: Clock,
    MessageType.DETACH: Detach,
    MessageType.SAVE: Save,
    MessageType.ADD: Add,
    MessageType.FEEDBACK: Feedback,
    MessageType.FINISH: Finish,
    MessageType.INTERRUPT: Interrupt,
    MessageType.EMIT: Emit,
    MessageType.CONSUMED: Consumed,
    MessageType.EVENT: Event,
    MessageType.LEASE: Lease,
    MessageType.STATE: State,
    MessageType.ADDED: Added,
}

SESSION_CLASSES: dict[MessageType, type[Any]] = {
    MessageType.HELLO: Hello,
    MessageType.WELCOME: Welcome,
    MessageType.ATTACH: Attach,
    MessageType.ATTACHED: Attached,
    MessageType.ERROR: Error,
    MessageType.BUSY: Busy,
    MessageType.JOIN: Join,
}

TYPE_OF: dict[type[Any], MessageType] = {
    cls: kind for kind, cls in (*FIXED_CLASSES.items(), *SESSION_CLASSES.items())
}

FromClient = Request | Batch | Feed | Clock | Detach | Save | Add
FromServer = Feedback | Finish | Interrupt | Emit | Consumed | Event | Lease | State | Added
Numbered = FromClient | FromServer
SessionMessage = Hello | Welcome | Attach | Attached | Error | Busy | Join
Message = Numbered | Ping | Pong | Ack | SessionMessage
