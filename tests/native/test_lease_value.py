"""A leased function of VM time, evaluated in C: the formula of docs/protocol.md, LEASE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from kvmshim._native import ffi, lib

from devserver.protocol.messages import Term

WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Function:
    """What a LEASE says of the value."""

    value: int
    until_ns: int
    terms: tuple[Term, ...]


def by_the_page(function: Function, now_ns: int) -> int | None:
    """The value; None where the lease says nothing."""
    if function.until_ns and now_ns >= function.until_ns:
        return None
    value = function.value
    for term in function.terms:
        clock = now_ns * term.num // term.den & WORD
        if clock < term.origin:
            return None
        n = clock - term.origin
        if term.period:
            n %= term.period
        if n < term.length:
            v = term.start + term.step * n
        else:
            v = term.start2 + term.step2 * (n - term.length)
        value |= (v & term.wrap) >> term.shift & term.mask
    return value


def by_c(function: Function, now_ns: int) -> int | None:
    grant = ffi.new("struct lease_grant *")
    grant.value, grant.until_ns = function.value, function.until_ns
    grant.term_count = len(function.terms)
    for place, term in enumerate(function.terms):
        grant.terms[place] = term._asdict()
    value: Any = ffi.new("uint64_t *")
    return int(value[0]) if lib.lease_value(grant, now_ns, value) else None


#: Any number, but near the edges and within reach of one another as often as not.
NUMBERS = st.integers(0, WORD) | st.integers(0, 4) | st.integers(WORD - 4, WORD)
TERMS = st.builds(
    Term,
    num=NUMBERS,
    den=NUMBERS.map(lambda den: den or 1),
    origin=st.integers(0, 100) | NUMBERS,
    period=st.integers(0, 100) | NUMBERS,
    length=st.integers(0, 100) | NUMBERS,
    start=NUMBERS,
    step=NUMBERS,
    start2=NUMBERS,
    step2=NUMBERS,
    wrap=NUMBERS,
    shift=st.integers(0, 63),
    mask=NUMBERS,
)
FUNCTIONS = st.builds(
    Function, NUMBERS, NUMBERS, st.lists(TERMS, max_size=lib.CODEC_MAX_TERMS).map(tuple)
)
#: A counter of the 8254 that runs down from 10000h: 1.193182 MHz (105/88 MHz).
COUNTER = Term(105, 88000, 5, 0x10000, WORD, 0x10000, WORD, 0, 0, 0xFFFF, 0, 0xFFFF)


@settings(max_examples=100, deadline=None)
@given(FUNCTIONS, NUMBERS | st.integers(0, 10**12))
@example(Function(0, 0, (COUNTER,)), 10**18)
@example(Function(0x20, 1000, ()), 999)
@example(Function(0x20, 1000, ()), 1000)
def test_c_evaluates_a_lease_as_the_page_says(function: Function, now_ns: int) -> None:
    assert by_c(function, now_ns) == by_the_page(function, now_ns)
