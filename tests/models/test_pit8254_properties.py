"""The PIT in closed form against the data sheet played out one CLK pulse at a time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pit_bench import Bench, NaivePit
from pit_sessions import Step, accesses, inspect, play, sessions, spans_ns

from devserver.models.pit8254.device import MAX_EDGES

some = settings(max_examples=30, deadline=None)


@some
@given(steps=sessions())
def test_the_closed_form_agrees_with_the_data_sheet_played_pulse_by_pulse(
    steps: list[Step],
) -> None:
    model, naive = Bench(), NaivePit()
    assert play(model, steps) == play(naive, steps)
    assert inspect(model) == inspect(naive)
    assert model.edges[:MAX_EDGES] == naive.edges[:MAX_EDGES]  # above, the model may merge them


@settings(some, max_examples=10)
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
