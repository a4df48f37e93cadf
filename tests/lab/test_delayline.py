"""A line delays, keeps the order and holds only so much: told by a clock that the tests turn."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmshim.lab.delayline import (
    PIECE_OVERHEAD_BYTES,
    RETRANSMISSION_NS,
    SEGMENT_BYTES,
    DelayLine,
    Loss,
)

DELAY_NS = 500
RTT_NS = 1000


class Dice(random.Random):
    """Gives the numbers that a test wants, then 1, which loses nothing."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self._numbers = list(numbers)

    def random(self) -> float:
        return self._numbers.pop(0) if self._numbers else 1.0


def arrived(line: DelayLine, now_ns: int) -> bytes:
    """All that has arrived, taken from the line."""
    data = b""
    while (piece := line.ready(now_ns)) is not None:
        data += piece
        line.take(len(piece))
    return data


def test_bytes_arrive_after_the_delay_and_not_a_nanosecond_before() -> None:
    line = DelayLine(DELAY_NS)
    line.put(b"abc", now_ns=100)
    assert line.due_ns == 100 + DELAY_NS
    assert arrived(line, 100 + DELAY_NS - 1) == b""
    assert arrived(line, 100 + DELAY_NS) == b"abc"
    assert line.due_ns is None


def test_each_piece_has_a_delay_of_its_own() -> None:
    line = DelayLine(DELAY_NS)
    line.put(b"a", now_ns=0)
    line.put(b"b", now_ns=300)
    assert arrived(line, DELAY_NS) == b"a"
    assert line.due_ns == 300 + DELAY_NS
    assert arrived(line, 300 + DELAY_NS) == b"b"


def test_what_is_taken_in_part_goes_on_where_it_was() -> None:
    line = DelayLine(0)
    line.put(b"abcdef", now_ns=0)
    line.take(2)
    assert arrived(line, 0) == b"cdef"


def test_the_end_comes_after_the_bytes_and_as_late_as_they() -> None:
    line = DelayLine(DELAY_NS)
    line.put(b"abc", now_ns=0)
    line.end(now_ns=10)
    assert line.room == 0
    assert not line.has_ended(10 + DELAY_NS)  # the bytes are there still
    assert arrived(line, 10) == b""
    assert arrived(line, DELAY_NS) == b"abc"
    assert line.due_ns == 10 + DELAY_NS
    assert not line.has_ended(10 + DELAY_NS - 1)
    assert line.has_ended(10 + DELAY_NS)


def test_a_full_line_has_no_room_until_something_is_taken() -> None:
    line = DelayLine(DELAY_NS, capacity_bytes=1000)
    line.put(bytes(line.room), now_ns=0)
    assert line.room == 0
    line.take(300)
    assert line.room == 300 - PIECE_OVERHEAD_BYTES
    arrived(line, DELAY_NS)
    assert line.room == 1000 - PIECE_OVERHEAD_BYTES


def test_many_small_pieces_fill_a_line_as_well() -> None:
    line = DelayLine(DELAY_NS, capacity_bytes=1000)
    count = 0
    while line.room:
        line.put(b"x", now_ns=0)
        count += 1
    assert count <= 1000 // PIECE_OVERHEAD_BYTES


@given(
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=20)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_whatever_is_lost_the_stream_arrives_in_order_and_none_too_early(
    sent: list[tuple[int, bytes]], source: random.Random
) -> None:
    line = DelayLine(DELAY_NS, penalty_ns=Loss(0.3, RTT_NS, source).penalty_ns)
    earliest: list[int] = []
    now_ns = 0
    for pause_ns, data in sent:
        now_ns += pause_ns
        line.put(data, now_ns)
        earliest += [now_ns + DELAY_NS] * len(data)
    received = b""
    while (due_ns := line.due_ns) is not None:
        assert due_ns >= earliest[len(received)]
        received += arrived(line, due_ns)
    assert received == b"".join(data for _, data in sent)


@pytest.mark.parametrize(("lost", "timeouts"), [(0, 0), (1, 1), (2, 1 + 2), (3, 1 + 2 + 4)])
def test_a_lost_segment_costs_timeouts_that_double(lost: int, timeouts: int) -> None:
    loss = Loss(0.1, RTT_NS, Dice(*[0.05] * lost))
    assert loss.penalty_ns(1) == timeouts * (RTT_NS + RETRANSMISSION_NS)


def test_a_long_piece_is_as_late_as_the_latest_of_its_segments() -> None:
    loss = Loss(0.1, RTT_NS, Dice(0.5, 0.05, 0.5))  # the second of two
    assert loss.penalty_ns(SEGMENT_BYTES + 1) == RTT_NS + RETRANSMISSION_NS


def test_what_follows_a_lost_segment_waits_for_it() -> None:
    line = DelayLine(DELAY_NS, penalty_ns=Loss(0.1, RTT_NS, Dice(0.05)).penalty_ns)
    line.put(b"lost", now_ns=0)
    line.put(b"not", now_ns=1)
    assert arrived(line, 1 + DELAY_NS) == b""
    assert arrived(line, DELAY_NS + RTT_NS + RETRANSMISSION_NS) == b"lostnot"


def test_the_share_that_was_asked_for_is_lost() -> None:
    loss = Loss(0.25, RTT_NS, random.Random(1))
    late = sum(loss.penalty_ns(1) > 0 for _ in range(4000))
    assert 900 < late < 1100
