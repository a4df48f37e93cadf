"""The numbers and the fields of fixed-width messages: how their bytes lie."""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag

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
    JOIN = 10
    PANEL = 11
    # numbered, client to server
    REQUEST = 16
    BATCH = 17
    FEED = 18
    CLOCK = 19
    DETACH = 20
    SAVE = 21
    ADD = 22
    # numbered, server to client
    FEEDBACK = 32
    FINISH = 33
    INTERRUPT = 34
    EMIT = 35
    CONSUMED = 36
    EVENT = 37
    LEASE = 38
    STATE = 39
    ADDED = 40

    __hash__ = int.__hash__  # Enum's own goes through the name, in Python


class Hypervisor(IntEnum):
    """Kind of hypervisor that runs a VM."""

    KVM = 1
    UNICORN = 2


class Direction(IntEnum):
    """Direction of an access, from the guest's side; the values are those of KVM_EXIT_IO."""

    IN = 0
    OUT = 1


class AddressSpace(IntEnum):
    """Where an address lies."""

    PORT = 0
    MEMORY = 1
    BUS = 2  # what processor and interrupt controllers say to each other; no instruction does


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    NO_DEVICE = 1
    FAULT = 2
    REFUSED = 3


class EventKind(IntEnum):
    """What an EVENT tells the client about the whole VM."""

    EXIT = 1  # the guest asked for its end; value is its exit status
    RESET = 2  # the guest asked for a reset of the machine
    FAULT = 3  # a device model failed; text says which and how


class LeaseRule(IntFlag):
    """The flags of a LEASE's ``rule``; below them are the lane, mask and match of ``HOLD``."""

    GRANTED = 1 << 24
    PAIR = 1 << 25  # the value has 16 bits; reads give its low byte and its high byte in turn
    HIGH_NEXT = 1 << 26  # of a pair: the next read gives the high byte
    HOLD = 1 << 27  # certain writes to a lane hold the value for the reads that follow


class FieldKind(Enum):
    """How a field of a numbered message stands on the wire: msgpack tag, struct letter, tail.

    A tail is always the last field: a u32 length, and so many of what the name says.
    """

    U8 = (0xCC, "B", "")
    U32 = (0xCE, "I", "")
    U64 = (0xCF, "Q", "")
    BIN = (0xC6, "I", "bytes")
    STR = (0xDB, "I", "bytes of UTF-8")
    WRITES = (0xDD, "I", "posted accesses")
    TERMS = (0xDD, "I", "terms of a lease")

    @property
    def tag(self) -> int:
        return self.value[0]

    @property
    def letter(self) -> str:
        return self.value[1]

    @property
    def is_tail(self) -> bool:
        return bool(self.value[2])


U8, U32, U64 = FieldKind.U8, FieldKind.U32, FieldKind.U64
BIN, STR, WRITES, TERMS = FieldKind.BIN, FieldKind.STR, FieldKind.WRITES, FieldKind.TERMS

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
    MessageType.DETACH: {**_FROM_CLIENT, "keep": U8, "time_ns": U64},
    MessageType.SAVE: {**_FROM_CLIENT, "device_id": U32, "remove": U8, "time_ns": U64},
    MessageType.ADD: {**_FROM_CLIENT, "time_ns": U64, "data": BIN},
    MessageType.FEEDBACK: {**_FROM_SERVER, "request": U64, "status": U8, "data": BIN},
    MessageType.FINISH: {**_FROM_SERVER, "request": U64, "status": U8},
    MessageType.INTERRUPT: {**_FROM_SERVER, "line": U32, "level": U8, "number": U64},
    MessageType.EMIT: {**_FROM_SERVER, "device_id": U32, "channel": U8, "data": BIN},
    MessageType.CONSUMED: {**_FROM_SERVER, "device_id": U32, "channel": U8, "total": U64},
    MessageType.EVENT: {**_FROM_SERVER, "device_id": U32, "kind": U8, "value": U64, "text": STR},
    MessageType.LEASE: {
        **_FROM_SERVER,
        "device_id": U32,
        "space": U8,
        "address": U64,
        "rule": U32,
        "value": U64,
        "until_ns": U64,
        "unaffected": U64,
        "steady": U64,
        "terms": TERMS,
    },
    MessageType.STATE: {**_FROM_SERVER, "request": U64, "status": U8, "data": BIN},
    MessageType.ADDED: {**_FROM_SERVER, "request": U64, "status": U8, "data": BIN},
}

#: The fields of one posted access in a batch.
WRITE_FIELDS: dict[str, FieldKind] = {
    "device_id": U32,
    "direction": U8,
    "space": U8,
    "address": U64,
    "size": U8,
    "time_ns": U64,
    "value": U64,
}

#: The fields of one term of a lease.
TERM_FIELDS: dict[str, FieldKind] = {
    "num": U64,
    "den": U64,
    "origin": U64,
    "period": U64,
    "length": U64,
    "start": U64,
    "step": U64,
    "start2": U64,
    "step2": U64,
    "wrap": U64,
    "shift": U8,
    "mask": U64,
}

#: Longest tail of each message that has one.
TAIL_LIMITS: dict[MessageType, int] = {
    MessageType.REQUEST: limits.MAX_DATA_BYTES,
    MessageType.BATCH: limits.MAX_BATCH_WRITES,
    MessageType.FEED: limits.MAX_FEED_BYTES,
    MessageType.ADD: limits.MAX_STATE_BYTES,
    MessageType.FEEDBACK: limits.MAX_DATA_BYTES,
    MessageType.EMIT: limits.MAX_EMIT_BYTES,
    MessageType.EVENT: limits.MAX_TEXT_BYTES,
    MessageType.LEASE: limits.MAX_TERMS,
    MessageType.STATE: limits.MAX_STATE_BYTES,
    MessageType.ADDED: limits.MAX_STATE_BYTES,
}
