"""The PIT in closed form against the data sheet played out one CLK pulse at a time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pit_bench import BOTH, Bench, NaivePit

from devserver.models.pit8254 import MAX_EDGES

Step = tuple[Any, ...]

some = settings(max_examples=50, deadline=None)

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


@some
@given(steps=sessions())
def test_the_closed_form_agrees_with_the_data_sheet_played_pulse_by_pulse(
    steps: list[Step],
) -> None:
    model, naive = Bench(), NaivePit()
    assert play(model, steps) == play(naive, steps)
    assert inspect(model) == inspect(naive)
    assert model.edges[:MAX_EDGES] == naive.edges[:MAX_EDGES]  # above, the model may merge them


@settings(some, max_examples=25)
@given(
    mode=st.integers(0, 7),
    bcd=st.booleans(),
    count=st.integers(0, 0xFFFF),
    then=st.integers(0, 0xFFFF),
    pulses=st.tuples(st.integers(0, 70_000), st.integers(0, 30_000)),
)
def test_long_counts_agree_too(
    mode: int, bcd: bool, count: int, then: int, pulses: tuple[int, int]
) -> None:
    model, naive = Bench(), NaivePit()
    steps: list[Step] = [("write", "counters", 3, 1, 0xB0 | mode << 1 | bcd)]
    for value, wait in zip((count, then), pulses, strict=True):
        halves = (value & 0xFF, value >> 8)
        steps += [("write", "counters", 2, 1, half) for half in halves]
        steps += [("write", "portb", 0, 1, 1), ("wait", wait * 838)]
    assert play(model, steps) == play(naive, steps)
    assert inspect(model) == inspect(naive)


@some
@given(steps=st.lists(accesses(st.integers(0, 0xFF)), max_size=60))
def test_any_accesses_at_all_agree_and_raise_nothing(steps: list[Step]) -> None:
    model, naive = Bench(), NaivePit()
    assert play(model, steps) == play(naive, steps)
    assert model.edges[:MAX_EDGES] == naive.edges[:MAX_EDGES]  # above, the model may merge them


@some
@given(before=sessions(), after=sessions())
def test_a_twin_restored_from_a_snapshot_goes_on_identically(
    before: list[Step], after: list[Step]
) -> None:
    model = Bench()
    play(model, before)
    twin = Bench()
    twin.device.load(model.device.save())
    twin.now_ns, twin.levels = model.now_ns, dict(model.levels)
    model.edges.clear()
    assert twin.device.deadline_ns() == model.device.deadline_ns()
    assert play(twin, after) == play(model, after)
    assert twin.edges == model.edges
    assert twin.device.save() == model.device.save()


@some
@given(steps=sessions(), spans=st.lists(spans_ns, min_size=1, max_size=20))
def test_waiting_in_one_go_or_in_pieces_comes_to_the_same(
    steps: list[Step], spans: list[int]
) -> None:
    whole, pieces = Bench(), Bench()
    play(whole, [*steps, ("wait", sum(spans))])
    play(pieces, [*steps, *(("wait", span) for span in spans)])
    assert whole.edges[:MAX_EDGES] == pieces.edges[:MAX_EDGES]
    assert inspect(whole) == inspect(pieces)
