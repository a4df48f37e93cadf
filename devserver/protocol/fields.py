"""The numbers and the fields of fixed-width messages: how their bytes lie."""

from __future__ import annotations

from enum import Enum, IntEnum

from devserver.protocol import limits


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
