"""Messages to bytes and back, and bytes that nobody should send."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import FIXED, MESSAGES, SESSION, fixed

from devserver.protocol import codec, limits
from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.messages import (
    FIELDS,
    TAIL_LIMITS,
    TYPE_OF,
    Ack,
    Batch,
    Emit,
    FieldKind,
    Hello,
    Message,
    MessageType,
    Ping,
    Request,
    Write,
)


def plain(value: Any) -> Any:
    """A message's value as msgpack readers without our classes see it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def refusal(data: bytes) -> RemoteProtocolError:
    """How a payload is refused."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(data)
    return caught.value


# -- what is written is read ----------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=3))
def test_messages_come_back_as_they_went(messages: list[Message]) -> None:
    assert codec.decode(b"".join(map(codec.encode, messages))) == messages


@settings(max_examples=100, deadline=None)
@given(FIXED)
def test_any_msgpack_library_reads_a_fixed_width_message(message: Any) -> None:
    read = msgpack.unpackb(codec.encode(message))
    assert read == [TYPE_OF[type(message)], *plain(message)]


@settings(max_examples=50, deadline=None)
@given(SESSION)
def test_any_msgpack_library_reads_a_session_message(message: Any) -> None:
    assert msgpack.unpackb(codec.encode(message)) == [TYPE_OF[type(message)], plain(message)]


@pytest.mark.parametrize("kind", list(FIELDS))
def test_every_field_of_a_fixed_width_message_has_one_offset(kind: MessageType) -> None:
    @settings(max_examples=10, deadline=None)
    @given(fixed(kind))
    def each_field_stands_at_its_offset(message: Any) -> None:
        encoded = codec.encode(message)
        layout = codec.LAYOUTS[kind]
        for (name, width), value in zip(FIELDS[kind].items(), message, strict=True):
            at = layout.offsets[name]
            assert encoded[at - 1] == width.tag
            if not width.is_tail:
                assert struct.unpack_from(f">{width.letter}", encoded, at) == (value,)

    each_field_stands_at_its_offset()


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_number_that_does_not_fit_its_field_is_not_sent(value: int) -> None:
    with pytest.raises(struct.error):
        codec.encode(Ack(value))


# -- bytes that nobody should send ----------------------------------------------------------------


def decodes_or_refuses(data: bytes) -> list[Message]:
    """The only two things that any payload may lead to."""
    try:
        return codec.decode(data)
    except RemoteProtocolError as error:
        refused = error
    assert refused.code is ErrorCode.MALFORMED
    assert "\n" not in str(refused)
    return []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    decodes_or_refuses(data)


@settings(max_examples=100, deadline=None)
@given(MESSAGES, st.data())
def test_a_damaged_message_is_decoded_or_refused(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(encoded))


@settings(max_examples=100, deadline=None)
@given(MESSAGES, st.data())
def test_a_message_cut_short_is_refused(message: Message, data: st.DataObject) -> None:
    encoded = codec.encode(message)
    kept = data.draw(st.integers(0, len(encoded) - 1))
    assert refusal(encoded[:kept]).code is ErrorCode.MALFORMED


@settings(max_examples=50, deadline=None)
@given(FIXED, st.data())
def test_a_field_with_another_tag_is_refused(message: Any, data: st.DataObject) -> None:
    encoded = bytearray(codec.encode(message))
    offsets = codec.LAYOUTS[TYPE_OF[type(message)]].offsets
    encoded[data.draw(st.sampled_from(sorted(offsets.values()))) - 1] ^= 0x01
    refusal(bytes(encoded))


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "an empty frame"),
        (b"\xc1", "not msgpack"),
        (b"\xc0", "not an array with a type"),
        (b"\x90", "not an array with a type"),
        (msgpack.packb(["1", {}]), "not an array with a type"),
        (msgpack.packb([True, {}]), "not an array with a type"),
        (msgpack.packb([99, {}]), "unknown message type 99"),
        (msgpack.packb([-1, {}]), "unknown message type -1"),
        (msgpack.packb([1]), "HELLO with 1 elements instead of 2"),
        (msgpack.packb([1, {}, 0]), "HELLO with 3 elements instead of 2"),
        (msgpack.packb([1, []]), "HELLO: expected a map"),
        (msgpack.packb([1, {"version": "1"}]), "HELLO.version: expected int"),
        (msgpack.packb([1, {"features": [1]}]), r"HELLO.features\[0\]: expected str"),
        (msgpack.packb([2, {}]), r"WELCOME: missing \['client_id'"),
        (msgpack.packb([16, 1, 2]), "REQUEST cut short"),
        (b"\x92\x01\x81\x01\x02", "not msgpack"),  # a map whose key is a number
    ],
)
def test_a_mistake_is_named(payload: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        codec.decode(payload)


def test_unknown_keys_of_a_session_message_are_passed_over() -> None:
    assert codec.decode(msgpack.packb([1, {"name": "a", "colour": "red"}])) == [Hello(name="a")]


def test_text_must_be_utf_8() -> None:
    encoded = codec.encode(codec.decode(event(b"ab"))[0])
    assert encoded == event(b"ab")
    with pytest.raises(RemoteProtocolError, match="EVENT with text that is not UTF-8"):
        codec.decode(event(b"\xff\xfe"))


def event(text: bytes) -> bytes:
    layout = codec.LAYOUTS[MessageType.EVENT]
    return layout.pack(1, 0, 1, 1, 1, 0, 1, 0, len(text)) + text


# -- lengths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(TAIL_LIMITS))
def test_a_tail_above_its_limit_is_refused_by_its_length_alone(kind: MessageType) -> None:
    layout, limit = codec.LAYOUTS[kind], TAIL_LIMITS[kind]
    for length in (limit + 1, (1 << 32) - 1):
        header = layout.pack(*[0] * (len(layout.offsets) - 1), length)
        assert f"at most {limit}" in str(refusal(header))


@pytest.mark.parametrize(
    "longest",
    [
        Request(1, 0, 1, 1, 1, 1, 1, 1, 0, 0x80, 1, 4096, 0, bytes(limits.MAX_DATA_BYTES)),
        Emit(1, 0, 1, 1, 1, 1, 0, bytes(limits.MAX_EMIT_BYTES)),
        Batch(1, 0, 1, 1, 1, 1, (Write(1, 1, 0, 0x80, 1, 0, 0),) * limits.MAX_BATCH_WRITES),
    ],
    ids=["REQUEST", "EMIT", "BATCH"],
)
def test_a_tail_at_its_limit_is_taken(longest: Message) -> None:
    assert codec.decode(codec.encode(longest)) == [longest]


@pytest.mark.parametrize(
    "length",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdd\x00\x0f\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\x7f\xff\xff\xff",
    ],
    ids=["array", "array that a frame could hold", "map", "text"],
)
def test_a_nest_of_great_lengths_is_refused_before_anything_is_allocated(length: bytes) -> None:
    tracemalloc.start()
    try:
        refusal(b"\x92\x01" + length * 500)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_deep_nesting_is_refused() -> None:
    refusal(b"\x92\x01" + b"\x91" * 100_000)


# -- frames ---------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=8), st.lists(st.integers(1, 20), min_size=1))
def test_frames_are_found_however_the_stream_is_cut(
    payloads: list[bytes], steps: list[int]
) -> None:
    stream = b"".join(map(codec.frame, payloads))
    reader, found, at, turn = codec.FrameReader(), [], 0, 0
    while at < len(stream):
        step = steps[turn % len(steps)]
        found += reader.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert found == payloads
    assert reader.is_empty()


@given(st.integers(0, 60))
def test_what_is_no_whole_frame_yet_is_kept(kept: int) -> None:
    stream = codec.frame(bytes(range(50))) * 2
    reader = codec.FrameReader()
    whole = reader.feed(stream[:kept])
    assert reader.rest() == stream[54 * len(whole) : kept]
    assert reader.is_empty() == (kept in (0, 54))


def test_a_frame_at_the_limit_is_taken_and_one_above_refused_at_its_length() -> None:
    longest = bytes(limits.MAX_FRAME_BYTES)
    assert codec.FrameReader().feed(codec.frame(longest)) == [longest]
    with pytest.raises(RemoteProtocolError, match="at most 1048576 are allowed") as caught:
        codec.FrameReader().feed((limits.MAX_FRAME_BYTES + 1).to_bytes(4))
    assert caught.value.code is ErrorCode.MALFORMED


def test_field_kinds_are_msgpack_tags() -> None:
    read = {
        FieldKind.U8: (b"\xcc\x07", 7),
        FieldKind.U32: (b"\xce\0\0\0\x07", 7),
        FieldKind.U64: (b"\xcf" + bytes(7) + b"\x07", 7),
        FieldKind.BIN: (b"\xc6\0\0\0\x01a", b"a"),
        FieldKind.STR: (b"\xdb\0\0\0\x01a", "a"),
        FieldKind.WRITES: (b"\xdd\0\0\0\x01\x07", [7]),
        FieldKind.TERMS: (b"\xdd\0\0\0\x01\x07", [7]),
    }
    for kind in FieldKind:
        encoded, value = read[kind]
        assert encoded[0] == kind.tag
        assert msgpack.unpackb(encoded) == value


def test_one_message_is_decoded_at_a_time() -> None:
    payload = codec.encode(Ping(1)) + codec.encode(Hello())
    first, at = codec.decode_one(payload, 0)
    second, end = codec.decode_one(payload, at)
    assert (first, second, end) == (Ping(1), Hello(), len(payload))
