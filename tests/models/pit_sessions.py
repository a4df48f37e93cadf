"""What guests do to a PIT: the accesses and spans of time that property tests draw from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pit_bench import BOTH, Bench, NaivePit

Step = tuple[Any, ...]

#: Small counts, which expire in a test's time, and those at the ends of each byte's range.
count_bytes = st.one_of(st.integers(0, 6), st.integers(0, 0x20), st.integers(0, 0xFF))
#: A pulse lasts 838.1 ns: from within one to a thousand of them.
spans_ns = st.one_of(
    st.integers(0, 3_000), st.integers(0, 10_000), st.integers(0, 40_000), st.integers(0, 1_000_000)
)
counters = st.sampled_from([0, 0, 1, 2, 2, 2])


def accesses(control_bytes: st.SearchStrategy[int]) -> st.SearchStrategy[Step]:
    """One access to a port, or some time."""
    ports, portb, one = st.just("counters"), st.just("portb"), st.just(1)
    return st.one_of(
        st.tuples(st.just("wait"), spans_ns),
        st.tuples(st.just("write"), ports, counters, one, count_bytes),
        st.tuples(st.just("write"), portb, st.just(0), one, st.integers(0, 0xFF)),
        st.tuples(st.just("write"), ports, st.just(3), one, control_bytes),
        st.tuples(st.just("read"), ports, counters, one),
        st.tuples(st.just("read"), portb, st.just(0), one),
    )


commands = st.one_of(
    st.integers(0xC0, 0xFF), st.sampled_from([0x00, 0x40, 0x80])
)  # the read-back and the latch: these leave the counters running


@st.composite
def setups(draw: st.DrawFn) -> list[Step]:
    """A counter made to count: control word, count, and in most cases GATE."""
    counter, access = draw(counters), draw(st.integers(1, BOTH))
    word = counter << 6 | access << 4 | draw(st.integers(0, 15))
    steps: list[Step] = [("write", "counters", 3, 1, word)]
    low, high = draw(count_bytes), draw(st.sampled_from([0, 0, 0, 1, 0xFF]))
    steps += [("write", "counters", counter, 1, byte) for byte in (low, high)[: 1 + access // BOTH]]
    gates = draw(st.sampled_from([(), (1,), (0, 1)]))
    return steps + [("write", "portb", 0, 1, gate) for gate in gates]


@st.composite
def sessions(draw: st.DrawFn) -> list[Step]:
    """Counters set up one after the other, each followed by time and things done meanwhile."""
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 4))):
        steps += draw(setups())
        for _ in range(draw(st.integers(1, 6))):
            steps.append(("wait", draw(spans_ns)))
            steps += draw(st.lists(accesses(commands), max_size=2))
    return steps


def play(pit: Bench | NaivePit, steps: list[Step]) -> list[object]:
    """All that the guest reads: by its steps, and of every counter behind each of them."""
    seen: list[object] = []
    for step in steps:
        match step:
            case "wait", span_ns:
                pit.wait(span_ns)
            case "write", region, offset, size, value:
                pit.write(region, offset, size, value)
            case "read", region, offset, size:
                seen.append((step, pit.read(region, offset, size)))
        seen.append((step, pit.read("portb", 0, 1)))
    return seen


def inspect(pit: Bench | NaivePit) -> list[int]:
    """Status and count of every counter, and port B."""
    pit.write("counters", 3, 1, 0xCE)
    return [pit.read("counters", n, 1) for n in (0, 1, 2) for _ in range(5)]
