"""Snapshots of the PIT that were tampered with are refused, or are such as a PIT could give."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pit_bench import Bench
from pit_sessions import Step, inspect, play, sessions

from devserver.models.device import StateError
from devserver.models.pit8254.counter import LAST_NS

absurd = st.sampled_from([-(1 << 70), -(1 << 20), -1, 0, 1, 2, 0x10000, 1 << 32, 1 << 64, 1 << 100])


def snapshot_of(pit: Bench) -> dict[str, Any]:
    return pit.device.save()


@settings(max_examples=50, deadline=None)
@given(steps=sessions(), index=st.integers(0, 2), data=st.data())
def test_absurd_numbers_are_refused_or_do_no_harm(
    steps: list[Step], index: int, data: st.DataObject
) -> None:
    pit = Bench()
    play(pit, steps)
    snapshot, before = snapshot_of(pit), snapshot_of(pit)
    part = data.draw(st.sampled_from([snapshot["state"], snapshot["state"]["counters"][index]]))
    names = [name for name, value in part.items() if type(value) is int or value is None]
    part[data.draw(st.sampled_from(names))] = data.draw(absurd)
    try:
        pit.device.load(snapshot)
    except StateError:
        assert snapshot_of(pit) == before
        return
    pit.wait(100_000)
    inspect(pit)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("control", 0),
        ("clock", -1),
        ("clock", LAST_NS),
        ("count_register", 0x10000),
        ("element", -1),
        ("latched_status", 256),
    ],
)
def test_a_counter_out_of_range_is_refused_by_name(field: str, value: int) -> None:
    pit = Bench()
    snapshot = snapshot_of(pit)
    snapshot["state"]["counters"][1][field] = value
    with pytest.raises(StateError, match=f"counter 1: {field} is {value}"):
        pit.device.load(snapshot)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"counting": True}, "has no count"),
        ({"latched_count": 5}, "no read of it"),
        (
            {"control": 0x36, "counting": True, "count_register": 3, "odd": True, "out": False},
            "OUT is to change at pulse 0",
        ),
    ],
)
def test_a_counter_that_contradicts_itself_is_refused(
    fields: dict[str, object], complaint: str
) -> None:
    pit = Bench()
    snapshot = snapshot_of(pit)
    snapshot["state"]["counters"][0] |= fields
    with pytest.raises(StateError, match=complaint):
        pit.device.load(snapshot)


@pytest.mark.parametrize("fields", [{"portb": 0x10}, {"window": -1}, {"edges": 5000}])
def test_what_is_beside_the_counters_is_checked_too(fields: dict[str, int]) -> None:
    pit = Bench()
    snapshot = snapshot_of(pit)
    snapshot["state"] |= fields
    with pytest.raises(StateError, match=f"{next(iter(fields.values()))}"):
        pit.device.load(snapshot)
