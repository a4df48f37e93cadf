"""Every message, its fields in wire order, and how wide each one is.

**Numbered messages** (requests, feedbacks, interrupts and the like) change the state of the other
end. They carry a sequence number, count up from 1 in each direction, and are *fixed-width*: every
integer has one msgpack encoding, so every field has a constant offset and a C program can treat
the bytes as a packed struct. **Session messages** set a conversation up and keep it alive.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any, NamedTuple

from devserver.protocol import limits
from devserver.protocol.greetings import (
    Attach,
    Attached,
    AttachedDevice,
    AttachedRegion,
    Busy,
    Error,
    Hello,
    PolicyRange,
    WantedDevice,
    Welcome,
)

__all__ = [
    "FIELDS",
    "FIXED_CLASSES",
    "SESSION_CLASSES",
    "TAIL_LIMITS",
    "TYPE_OF",
    "WRITE_FIELDS",
    "Ack",
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
    "Message",
    "MessageType",
    "Numbered",
    "Ping",
    "PolicyRange",
    "Pong",
    "Request",
    "SessionMessage",
    "Status",
    "WantedDevice",
    "Welcome",
    "Write",
]


class MessageType(IntEnum):
    """First element of every message."""

    HELLO = 1
    WELCOME = 2
    ATTACH = 3
    ATTACHED = 4
    ERROR = 5
    BUSY = 6
    PING = 7
    PONG = 8
    ACK = 9
    # numbered, client to server
    REQUEST = 16
    BATCH = 17
    FEED = 18
    CLOCK = 19
    DETACH = 20
    # numbered, server to client
    FEEDBACK = 32
    FINISH = 33
    INTERRUPT = 34
    EMIT = 35
    CONSUMED = 36
    EVENT = 37

    __hash__ = int.__hash__  # Enum's own goes through the name, in Python


class Hypervisor(IntEnum):
    """Kind of hypervisor that runs a VM."""

    KVM = 1


class Direction(IntEnum):
    """Direction of an access, from the guest's side; the values are those of KVM_EXIT_IO."""

    IN = 0
    OUT = 1


class AddressSpace(IntEnum):
    """Where an address lies."""

    PORT = 0
    MEMORY = 1


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    NO_DEVICE = 1
    FAULT = 2


class EventKind(IntEnum):
    """What an EVENT tells the client about the whole VM."""

    EXIT = 1  # the guest asked for its end; value is its exit status
    RESET = 2  # the guest asked for a reset of the machine
    FAULT = 3  # a device model failed; text says which and how


class FieldKind(Enum):
    """How a field of a numbered message stands on the wire: msgpack tag and struct letter."""

    U8 = (0xCC, "B", 1)
    U32 = (0xCE, "I", 4)
    U64 = (0xCF, "Q", 8)
    BIN = (0xC6, "I", 4)  # u32 length, then the bytes; always the last field
    STR = (0xDB, "I", 4)  # likewise, UTF-8
    WRITES = (0xDD, "I", 4)  # array32 of posted writes; always the last field

    @property
    def tag(self) -> int:
        return self.value[0]

    @property
    def letter(self) -> str:
        return self.value[1]

    @property
    def is_tail(self) -> bool:
        return self in (FieldKind.BIN, FieldKind.STR, FieldKind.WRITES)


U8, U32, U64 = FieldKind.U8, FieldKind.U32, FieldKind.U64
BIN, STR, WRITES = FieldKind.BIN, FieldKind.STR, FieldKind.WRITES

_FROM_CLIENT = {
    "seq": U64,
    "ack": U64,
    "server_id": U32,
    "vm_id": U32,
    "hypervisor": U8,
    "client_id": U32,
}
_FROM_SERVER = {"seq": U64, "applied": U64, "vm_id": U32, "hypervisor": U8, "client_id": U32}

#: The fields of every fixed-width message, in wire order after the type.
FIELDS: dict[MessageType, dict[str, FieldKind]] = {
    MessageType.PING: {"token": U64},
    MessageType.PONG: {"token": U64, "ack": U64},
    MessageType.ACK: {"ack": U64},
    MessageType.REQUEST: {
        **_FROM_CLIENT,
        "device_id": U32,
        "direction": U8,
        "space": U8,
        "address": U64,
        "size": U8,
        "elements": U32,
        "time_ns": U64,
        "data": BIN,
    },
    MessageType.BATCH: {**_FROM_CLIENT, "writes": WRITES},
    MessageType.FEED: {
        **_FROM_CLIENT,
        "device_id": U32,
        "channel": U8,
        "end": U8,
        "time_ns": U64,
        "data": BIN,
    },
    MessageType.CLOCK: {**_FROM_CLIENT, "running": U8, "time_ns": U64},
    MessageType.DETACH: {**_FROM_CLIENT, "time_ns": U64},
    MessageType.FEEDBACK: {**_FROM_SERVER, "request": U64, "status": U8, "data": BIN},
    MessageType.FINISH: {**_FROM_SERVER, "request": U64, "status": U8},
    MessageType.INTERRUPT: {**_FROM_SERVER, "line": U32, "level": U8, "number": U64},
    MessageType.EMIT: {**_FROM_SERVER, "device_id": U32, "channel": U8, "data": BIN},
    MessageType.CONSUMED: {**_FROM_SERVER, "device_id": U32, "channel": U8, "total": U64},
    MessageType.EVENT: {**_FROM_SERVER, "device_id": U32, "kind": U8, "value": U64, "text": STR},
}

#: The fields of one write in a batch.
WRITE_FIELDS: dict[str, FieldKind] = {
    "device_id": U32,
    "space": U8,
    "address": U64,
    "size": U8,
    "time_ns": U64,
    "value": U64,
}

#: Longest tail of each message that has one.
TAIL_LIMITS: dict[MessageType, int] = {
    MessageType.REQUEST: limits.MAX_DATA_BYTES,
    MessageType.BATCH: limits.MAX_BATCH_WRITES,
    MessageType.FEED: limits.MAX_FEED_BYTES,
    MessageType.FEEDBACK: limits.MAX_DATA_BYTES,
    MessageType.EMIT: limits.MAX_EMIT_BYTES,
    MessageType.EVENT: limits.MAX_TEXT_BYTES,
}


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
    """One posted write in a batch."""

    device_id: int
    space: int
    address: int
    size: int
    time_ns: int
    value: int


class Batch(NamedTuple):
    """Posted writes in program order. Never answered, only acknowledged."""

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
    """The VM has ended; its devices go with it."""

    seq: int
    ack: int
    server_id: int
    vm_id: int
    hypervisor: int
    client_id: int
    time_ns: int


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


FIXED_CLASSES: dict[MessageType, type[Any]] = {
    MessageType.PING: Ping,
    MessageType.PONG: Pong,
    MessageType.ACK: Ack,
    MessageType.REQUEST: Request,
    MessageType.BATCH: Batch,
    MessageType.FEED: Feed,
    MessageType.CLOCK: Clock,
    MessageType.DETACH: Detach,
    MessageType.FEEDBACK: Feedback,
    MessageType.FINISH: Finish,
    MessageType.INTERRUPT: Interrupt,
    MessageType.EMIT: Emit,
    MessageType.CONSUMED: Consumed,
    MessageType.EVENT: Event,
}

SESSION_CLASSES: dict[MessageType, type[Any]] = {
    MessageType.HELLO: Hello,
    MessageType.WELCOME: Welcome,
    MessageType.ATTACH: Attach,
    MessageType.ATTACHED: Attached,
    MessageType.ERROR: Error,
    MessageType.BUSY: Busy,
}

TYPE_OF: dict[type[Any], MessageType] = {
    cls: kind for kind, cls in (*FIXED_CLASSES.items(), *SESSION_CLASSES.items())
}

FromClient = Request | Batch | Feed | Clock | Detach
FromServer = Feedback | Finish | Interrupt | Emit | Consumed | Event
Numbered = FromClient | FromServer
SessionMessage = Hello | Welcome | Attach | Attached | Error | Busy
Message = Numbered | Ping | Pong | Ack | SessionMessage
