"""Messages to bytes and back. No state, no I/O; every length is checked before it is believed.

A fixed-width message is packed by one :class:`struct.Struct` laid over its fields' *values*; the
msgpack tags between them are constants that are ORed in on the way out and compared on the way
in, so that a wrong tag anywhere is found by one comparison.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgpack

from devserver.plain import PlainError, from_plain
from devserver.protocol import limits
from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.messages import (
    FIELDS,
    FIXED_CLASSES,
    SESSION_CLASSES,
    TAIL_LIMITS,
    TERM_FIELDS,
    TYPE_OF,
    WRITE_FIELDS,
    FieldKind,
    Message,
    MessageType,
    Term,
    Write,
)

_FRAME = struct.Struct(">I")
_BITS = {"B": 8, "I": 32, "Q": 64}


class Layout:
    """The bytes of a run of fixed-width fields behind an array header (and a type)."""

    def __init__(self, head: bytes, fields: dict[str, FieldKind]) -> None:
        letters = "".join(f"x{kind.letter}" for kind in fields.values())
        self.values = struct.Struct(f">{len(head)}x{letters}")
        self.size = self.values.size
        tags, mask = bytearray(head), bytearray(b"\xff" * len(head))
        self.offsets: dict[str, int] = {}
        for name, kind in fields.items():
            tags.append(kind.tag)
            mask.append(0xFF)
            self.offsets[name] = len(tags)
            width = _BITS[kind.letter] // 8
            tags += bytes(width)
            mask += bytes(width)
        self.tags = int.from_bytes(tags)
        self.mask = int.from_bytes(mask)

    def pack(self, *values: int) -> bytes:
        return (int.from_bytes(self.values.pack(*values)) | self.tags).to_bytes(self.size)

    def matches(self, data: bytes, at: int) -> bool:
        return int.from_bytes(data[at : at + self.size]) & self.mask == self.tags


def _head(kind: MessageType, fields: dict[str, FieldKind]) -> bytes:
    return bytes([0x90 | (len(fields) + 1), kind])


LAYOUTS: dict[MessageType, Layout] = {
    kind: Layout(_head(kind, fields), fields) for kind, fields in FIELDS.items()
}
_TAILS: dict[MessageType, FieldKind | None] = {
    kind: last if (last := list(fields.values())[-1]).is_tail else None
    for kind, fields in FIELDS.items()
}
_CHUNK_RECORDS = 64
WRITE_LAYOUT = Layout(bytes([0x90 | len(WRITE_FIELDS)]), WRITE_FIELDS)
TERM_LAYOUT = Layout(bytes([0x90 | len(TERM_FIELDS)]), TERM_FIELDS)
#: The tails that are arrays of fixed-width records.
_RECORDS: dict[FieldKind, tuple[Layout, type[Any]]] = {
    FieldKind.WRITES: (WRITE_LAYOUT, Write),
    FieldKind.TERMS: (TERM_LAYOUT, Term),
}


def encode(message: Message) -> bytes:
    """One message as msgpack. Raises ``struct.error`` if a number does not fit its field."""
    kind = TYPE_OF[type(message)]
    layout = LAYOUTS.get(kind)
    if layout is None:
        fields = dataclasses.asdict(message)  # type: ignore[arg-type]
        return msgpack.packb([int(kind), fields])  # type: ignore[no-any-return]
    values: tuple[Any, ...] = message  # type: ignore[assignment]
    tail = _TAILS[kind]
    if tail is None:
        return layout.pack(*values)
    last = values[-1]
    if tail in _RECORDS:
        body, length = pack_records(_RECORDS[tail][0], last), len(last)
    else:
        body = last.encode() if tail is FieldKind.STR else last
        length = len(body)
    return layout.pack(*values[:-1], length) + body


def pack_records(layout: Layout, records: Iterable[tuple[int, ...]]) -> bytes:
    """The tail of a message that is an array of records."""
    return b"".join([layout.pack(*record) for record in records])


def frame(payload: bytes) -> bytes:
    """Puts the length in front of a frame's payload (one or more encoded messages)."""
    return _FRAME.pack(len(payload)) + payload


def decode(payload: bytes) -> list[Message]:
    """Every message of a frame's payload. Raises :class:`RemoteProtocolError` (malformed)."""
    return list(iterate(payload))


def iterate(payload: bytes) -> Iterator[Message]:
    """The messages of a frame's payload one by one, so that a stranger's can be refused early."""
    if not payload:
        raise _malformed("an empty frame")
    at = 0
    while at < len(payload):
        message, at = decode_one(payload, at)
        yield message


def decode_one(payload: bytes, at: int) -> tuple[Message, int]:
    """The message at offset ``at`` of a payload, and the offset behind it."""
    code = payload[at + 1] if at + 1 < len(payload) else 0
    if code not in LAYOUTS:
        return _decode_session(payload, at)
    kind = MessageType(code)
    layout = LAYOUTS[kind]
    end = at + layout.size
    if end > len(payload):
        raise _malformed(f"{kind.name} cut short: {len(payload) - at} of {layout.size} bytes")
    if not layout.matches(payload, at):
        raise _malformed(f"{kind.name} whose fields do not have their fixed widths")
    values = layout.values.unpack_from(payload, at)
    if _TAILS[kind] is None:
        return FIXED_CLASSES[kind]._make(values), end
    tail, end = _decode_tail(kind, values[-1], payload, end)
    return FIXED_CLASSES[kind]._make((*values[:-1], tail)), end


def _decode_tail(kind: MessageType, length: int, payload: bytes, at: int) -> tuple[Any, int]:
    if length > TAIL_LIMITS[kind]:
        raise _malformed(f"{kind.name} with a tail of {length}; at most {TAIL_LIMITS[kind]}")
    tail = _TAILS[kind]
    records = _RECORDS.get(tail) if tail else None
    end = at + length * (records[0].size if records else 1)
    if end > len(payload):
        raise _malformed(f"{kind.name} cut short: its tail needs {end - len(payload)} bytes more")
    if records:
        return _decode_records(kind, *records, payload[at:end]), end
    body = payload[at:end]
    if tail is FieldKind.BIN:
        return body, end
    try:
        return body.decode(), end
    except UnicodeDecodeError:
        raise _malformed(f"{kind.name} with text that is not UTF-8") from None


@cache
def _records_pattern(layout: Layout, count: int) -> tuple[int, int]:
    """Mask and tags of so many records in a row, as one number each."""
    mask, tags = layout.mask.to_bytes(layout.size), layout.tags.to_bytes(layout.size)
    return int.from_bytes(mask * count), int.from_bytes(tags * count)


def _decode_records(
    kind: MessageType, layout: Layout, record: type[Any], tail: bytes
) -> tuple[Any, ...]:
    chunk_bytes = _CHUNK_RECORDS * layout.size
    for start in range(0, len(tail), chunk_bytes):
        chunk = tail[start : start + chunk_bytes]
        mask, tags = _records_pattern(layout, len(chunk) // layout.size)
        if int.from_bytes(chunk) & mask != tags:
            raise _malformed(
                f"{kind.name} with a {record.__name__.lower()} whose fields do not have their "
                f"fixed widths"
            )
    return tuple(map(record._make, layout.values.iter_unpack(tail)))


def _decode_session(payload: bytes, at: int) -> tuple[Message, int]:
    unpacker = msgpack.Unpacker(
        max_buffer_size=limits.MAX_FRAME_BYTES,
        max_array_len=limits.MAX_LIST_ITEMS,  # msgpack allocates a list before it has its items
        max_ext_len=0,
        strict_map_key=True,
    )
    unpacker.feed(payload[at:])
    try:
        parts = unpacker.unpack()
    except msgpack.OutOfData:
        raise _malformed("a message cut short") from None
    except Exception as error:  # msgpack raises a dozen kinds for bytes that are not msgpack
        raise _malformed(f"not msgpack: {type(error).__name__}") from None
    if not (isinstance(parts, list) and parts and type(parts[0]) is int):
        raise _malformed("a message that is not an array with a type")
    cls = SESSION_CLASSES.get(parts[0])  # type: ignore[call-overload]
    if cls is None:
        raise _malformed(f"unknown message type {parts[0]}")
    if len(parts) != 2:
        raise _malformed(f"{cls.__name__.upper()} with {len(parts)} elements instead of 2")
    try:
        message = from_plain(cls, parts[1], cls.__name__.upper(), lenient=True)
    except (PlainError, RecursionError) as error:
        raise _malformed(str(error)) from None
    return message, at + unpacker.tell()


def _malformed(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.MALFORMED, what)


class FrameReader:
    """Cuts a byte stream into frame payloads; never holds more than one frame's bound."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Takes bytes from the stream; returns the payloads that are complete now."""
        return list(self.payloads(data))

    def payloads(self, data: bytes) -> Iterator[bytes]:
        """The same one by one: those before a frame that is too long come before the error."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= limits.FRAME_HEADER_BYTES:
                (length,) = _FRAME.unpack_from(buffer, at)
                if length > limits.MAX_FRAME_BYTES:
                    raise _malformed(
                        f"a frame of {length} bytes; at most {limits.MAX_FRAME_BYTES} are allowed"
                    )
                start, end = at + limits.FRAME_HEADER_BYTES, at + limits.FRAME_HEADER_BYTES + length
                if end > len(buffer):
                    break
                at = end
                yield bytes(buffer[start:end])
        finally:
            del buffer[:at]

    def is_empty(self) -> bool:
        """Whether no part of a frame is held."""
        return not self._buffer

    def rest(self) -> bytes:
        """Bytes of a frame that is not complete yet."""
        return bytes(self._buffer)
