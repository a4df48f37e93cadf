"""Any interleaving of valid messages, in any frames, cut anywhere."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from session_rig import Rig, attached, feed, posted, read, write
from trial_device import BIG, COUNT, IRQ, ROOM, TIME, VALUE

from devserver.protocol.connection import blank
from devserver.protocol.messages import (
    Batch,
    Clock,
    Direction,
    Feedback,
    Finish,
    FromClient,
    Interrupt,
    Message,
    Ping,
    Pong,
    Request,
)

BYTES = st.integers(0, 255)
TIMES = st.integers(0, 10**9)

#: Register and size; eight bytes from VALUE would reach the register that fails.
PLACES = [(COUNT, 1), (COUNT, 4), (COUNT, 8), (TIME, 8), (TIME, 2), (VALUE, 1), (VALUE, 4)]
READS = st.builds(
    lambda place, elements, at: read(*place, elements=elements, time_ns=at),
    st.sampled_from(PLACES),
    st.integers(1, 4),
    TIMES,
)
COUNTS = st.builds(read, st.just(COUNT), st.just(8), time_ns=TIMES)
WRITES = st.builds(write, st.sampled_from([VALUE, IRQ, ROOM, BIG]), BYTES, time_ns=TIMES)
STRINGS = st.binary(min_size=1, max_size=9).map(
    lambda data: write(VALUE, 0, data=data, elements=len(data))
)
POSTED = st.builds(
    lambda values, at: posted(VALUE, *values, time_ns=at), st.lists(BYTES, max_size=5), TIMES
)
FEEDS = st.builds(feed, st.binary(max_size=20), time_ns=TIMES)
CLOCKS = st.builds(
    lambda running, at: blank(Clock, running=running, time_ns=at), st.integers(0, 1), TIMES
)
PINGS = st.builds(Ping, st.integers(0, 9))
MESSAGES: st.SearchStrategy[FromClient | Ping] = st.one_of(
    READS, COUNTS, WRITES, STRINGS, POSTED, FEEDS, CLOCKS, PINGS
)


def requests_of(messages: list[FromClient | Ping]) -> list[tuple[int, type[Message]]]:
    """The number of every message that wants an answer, and the answer's class."""
    wanted: list[tuple[int, type[Message]]] = []
    seq = 0
    for message in messages:
        if isinstance(message, Ping):
            continue
        seq += 1
        if isinstance(message, Request):
            is_in = message.direction == Direction.IN
            wanted.append((seq, Feedback if is_in else Finish))
    return wanted


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(MESSAGES, min_size=1, max_size=4), max_size=12), st.data())
def test_requests_are_answered_in_order_however_they_are_packed(
    frames: list[list[FromClient | Ping]], data: st.DataObject
) -> None:
    rig = attached()
    stream = b"".join(rig.client.send(*frame) for frame in frames)
    said: list[Message] = []
    while stream:
        length = data.draw(st.sampled_from([1, 50, 112, 1000]) | st.integers(1, 400))
        part, stream = stream[:length], stream[length:]
        said += rig.carry(part)  # the client's connection holds numbers and acknowledgements
    messages = [message for frame in frames for message in frame]
    answers = [message for message in said if isinstance(message, Feedback | Finish)]
    assert [(m.request, type(m)) for m in answers] == requests_of(messages)
    assert [m.applied for m in answers] == [m.request for m in answers]
    pings = [message.token for message in messages if isinstance(message, Ping)]
    assert [message.token for message in said if isinstance(message, Pong)] == pings
    assert not rig.session.finished


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGES, max_size=25))
def test_one_message_at_a_time_does_what_many_in_a_frame_do(
    messages: list[FromClient | Ping],
) -> None:
    one, two = attached(), attached()
    singly = [answer for message in messages for answer in one.say(message)]
    together = two.say(*messages) if messages else []
    assert singly == together


@settings(max_examples=60, deadline=None)
@given(st.lists(WRITES | COUNTS | POSTED, max_size=20))
def test_each_line_changes_by_turns_and_counts_up(messages: list[Request | Batch]) -> None:
    rig = attached()
    said = [answer for message in messages for answer in rig.say(message)]
    for line in {m.line for m in said if isinstance(m, Interrupt)}:
        changes = [(m.number, m.level) for m in said if isinstance(m, Interrupt) and m.line == line]
        assert changes == [(n, n % 2) for n in range(1, len(changes) + 1)]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_end_in_silence_or_in_one_error(data: bytes, is_attached: bool) -> None:
    rig = attached() if is_attached else Rig()
    said = rig.carry(data)
    assert len(said) <= 1
    assert rig.session.finished == bool(said)
