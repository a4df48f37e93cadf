"""What a lease says of a value over VM time, against the plain meaning of its words."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from devserver.models.lease import LANES, Hold, Lease, Term

some = settings(max_examples=80, deadline=None)
words = st.integers(0, (1 << 64) - 1)
small = st.integers(-300, 300)


@some
@given(
    origin=st.integers(0, 1000), length=st.integers(0, 200), start=small, step=small, data=st.data()
)
def test_a_term_steps_once_for_each_clock(
    origin: int, length: int, start: int, step: int, data: st.DataObject
) -> None:
    start2, step2 = data.draw(small), data.draw(small)
    term = Term(
        num=1, den=10, origin=origin, length=length, start=start, step=step,
        start2=start2, step2=step2, mask=0xFFFF,
    )  # fmt: skip
    n = data.draw(st.integers(0, 400))
    value = start
    for clock in range(1, n + 1):
        value = start2 if clock == length else value + (step if clock < length else step2)
    if length == 0:
        value = start2 + step2 * n
    assert term.at((origin + n) * 10 + 9) == value & 0xFFFF


@some
@given(period=st.integers(1, 1000), rounds=st.integers(0, 1 << 40), n=st.integers(0, 2000))
def test_a_term_with_a_period_says_the_same_in_each_round(period: int, rounds: int, n: int) -> None:
    term = Term(
        num=1, den=1, origin=5, period=period, length=period // 2, start=9, step=-1, start2=1
    )
    assert term.at(5 + n + rounds * period) == term.at(5 + n)


@some
@given(start=words, shift=st.integers(0, 63), mask=words, wrap=words)
def test_a_term_gives_the_bits_that_wrap_shift_and_mask_leave(
    start: int, shift: int, mask: int, wrap: int
) -> None:
    term = Term(num=1, den=1, origin=0, length=1, start=start, wrap=wrap, shift=shift, mask=mask)
    assert term.at(0) == ((start & wrap) >> shift) & mask


def test_a_lease_covers_neither_the_time_before_its_terms_nor_its_end() -> None:
    term = Term(num=1, den=10, origin=5, length=1, start=1)
    lease = Lease(terms=(term,), until_ns=70)
    assert [t for t in range(100) if lease.covers(t)] == list(range(50, 70))


@some
@given(value=st.integers(0, 0xFFFF), pair=st.booleans())
def test_a_pair_has_16_bits_and_any_other_lease_8(value: int, pair: bool) -> None:
    assert Lease(value=value, pair=pair).at(0) == value & (0xFFFF if pair else 0xFF)


def test_lanes_that_a_lease_has_no_bit_for_always_affect_it() -> None:
    lease = Lease(unaffected=(1 << LANES) - 1)
    assert lease.is_unaffected_by(LANES - 1)
    assert not lease.is_unaffected_by(LANES)


def test_a_hold_is_meant_by_the_matching_bits_on_its_lane_only() -> None:
    hold = Hold(lane=3, mask=0xF0, match=0x80)
    assert hold.is_meant_by(3, 0x8F)
    assert not hold.is_meant_by(3, 0x90)
    assert not hold.is_meant_by(2, 0x80)
