"""The C codec makes Python's bytes, reads what Python reads, and crashes at nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvmshim._native import ffi, lib
from wire_strategies import FIXED, MESSAGES, WRITES

from devserver.protocol import codec, limits
from devserver.protocol.errors import RemoteProtocolError
from devserver.protocol.messages import (
    FIELDS,
    TYPE_OF,
    FieldKind,
    Message,
    MessageType,
    Term,
    Write,
)

ERRORS = {lib.CODEC_TRUNCATED, lib.CODEC_MALFORMED, lib.CODEC_UNKNOWN, lib.CODEC_TOO_LONG}
#: What C calls fields that Python has more than one name for.
NAMES = {"applied": "ack"}


def write_to_c(write: Write) -> bytes:
    out = ffi.new("uint8_t[]", lib.CODEC_WRITE_BYTES)
    lib.codec_encode_write(ffi.new("struct posted_write *", write._asdict()), out)
    return bytes(out)


def term_to_c(term: Term) -> bytes:
    out = ffi.new("uint8_t[]", lib.CODEC_TERM_BYTES)
    lib.codec_encode_term(ffi.new("struct lease_term *", term._asdict()), out)
    return bytes(out)


RECORDS = {FieldKind.WRITES: write_to_c, FieldKind.TERMS: term_to_c}


def c_bytes(message: Any) -> bytes:
    """The message as C encodes it."""
    kind = TYPE_OF[type(message)]
    held = ffi.new("struct message *", {"type": int(kind)})
    for (name, width), value in zip(FIELDS[kind].items(), message, strict=True):
        if not width.is_tail:
            setattr(held, NAMES.get(name, name), value)
            continue
        body = value.encode() if width is FieldKind.STR else value
        if width in RECORDS:
            body = b"".join(map(RECORDS[width], value))
        tail = ffi.from_buffer("uint8_t[]", body)
        held.data, held.length = tail, len(value if width in RECORDS else body)
    size = lib.codec_size(held)
    assert size > 0
    out = ffi.new("uint8_t[]", size)
    assert lib.codec_encode(held, out) == size
    return bytes(out)


def c_message(data: bytes) -> tuple[int, Any]:
    """What codec_decode gives for exactly these bytes, and the message as Python's class."""
    held = ffi.new("struct message *")
    exact = ffi.new("uint8_t[]", data)  # with a zero behind it; never to be looked at
    size = lib.codec_decode(exact, len(data), held)
    return size, _to_python(held) if size > 0 else None


def _to_python(held: Any) -> list[Any]:
    kind = MessageType(held.type)
    values: list[Any] = [kind]
    for name, width in FIELDS[kind].items():
        if not width.is_tail:
            values.append(getattr(held, NAMES.get(name, name)))
        elif width is FieldKind.WRITES:
            values.append(tuple(_write(held.data, i) for i in range(held.length)))
        elif width is FieldKind.TERMS:
            values.append(tuple(_term(held.data, i) for i in range(held.length)))
        else:
            values.append(bytes(ffi.buffer(held.data, held.length)))
    return values


def _write(data: Any, index: int) -> Write:
    held = ffi.new("struct posted_write *")
    assert lib.codec_decode_write(data + index * lib.CODEC_WRITE_BYTES, held) == 0
    return Write(*(getattr(held, name) for name in Write._fields))


def _term(data: Any, index: int) -> Term:
    held = ffi.new("struct lease_term *")
    assert lib.codec_decode_term(data + index * lib.CODEC_TERM_BYTES, held) == 0
    return Term(*(getattr(held, name) for name in Term._fields))


def in_python(message: Any) -> list[Any]:
    values = [value.encode() if isinstance(value, str) else value for value in message]
    return [TYPE_OF[type(message)], *values]


@settings(max_examples=150, deadline=None)
@given(FIXED)
def test_c_and_python_make_the_same_bytes(message: Any) -> None:
    assert c_bytes(message) == codec.encode(message)


@settings(max_examples=100, deadline=None)
@given(FIXED)
def test_each_reads_what_the_other_wrote(message: Any) -> None:
    encoded = codec.encode(message)
    assert c_message(encoded) == (len(encoded), in_python(message))
    assert codec.decode(c_bytes(message)) == [message]


@settings(max_examples=30, deadline=None)
@given(WRITES)
def test_a_posted_write_is_the_same_in_both(write: Write) -> None:
    assert write_to_c(write) == codec.WRITE_LAYOUT.pack(*write)


@settings(max_examples=50, deadline=None)
@given(MESSAGES)
def test_session_messages_are_unknown_to_c(message: Message) -> None:
    size, _ = c_message(codec.encode(message))
    assert (size == lib.CODEC_UNKNOWN) == (TYPE_OF[type(message)] not in FIELDS)


def agree(data: bytes) -> None:
    """Fails unless C and Python take the first message of ``data`` alike, or both refuse it."""
    size, values = c_message(data)
    if size == lib.CODEC_UNKNOWN:
        return  # a session message, or none at all
    try:
        message, end = codec.decode_one(data, 0)
    except RemoteProtocolError as error:
        refused = str(error)
        assert size in ERRORS or "UTF-8" in refused  # C passes text on unread
    else:
        assert (size, values) == (end, in_python(message))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100))
def test_c_takes_any_bytes_and_agrees_with_python(data: bytes) -> None:
    agree(data)


@settings(max_examples=200, deadline=None)
@given(FIXED, st.data())
def test_c_takes_damaged_messages_and_agrees_with_python(message: Any, data: st.DataObject) -> None:
    encoded = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(0, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    agree(bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CODEC_MAX_FRAME", limits.MAX_FRAME_BYTES),
        ("CODEC_MAX_DATA", limits.MAX_DATA_BYTES),
        ("CODEC_MAX_FEED", limits.MAX_FEED_BYTES),
        ("CODEC_MAX_EMIT", limits.MAX_EMIT_BYTES),
        ("CODEC_MAX_WRITES", limits.MAX_BATCH_WRITES),
        ("CODEC_MAX_TEXT", limits.MAX_TEXT_BYTES),
        ("CODEC_MAX_STATE", limits.MAX_STATE_BYTES),
        ("CODEC_WRITE_BYTES", codec.WRITE_LAYOUT.size),
    ],
)
def test_c_has_the_limits_that_python_has(name: str, value: int) -> None:
    assert getattr(lib, name) == value


@pytest.mark.parametrize("length", [limits.MAX_DATA_BYTES + 1, (1 << 32) - 1])
def test_c_refuses_to_write_a_tail_above_its_limit(length: int) -> None:
    held = ffi.new("struct message *", {"type": int(MessageType.REQUEST), "length": length})
    assert lib.codec_size(held) == lib.CODEC_TOO_LONG
    assert lib.codec_encode(held, ffi.new("uint8_t[]", 128)) == lib.CODEC_TOO_LONG


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(FIELDS)))
def test_c_refuses_a_type_that_it_does_not_know(kind: int) -> None:
    assert lib.codec_size(ffi.new("struct message *", {"type": kind})) == lib.CODEC_UNKNOWN
