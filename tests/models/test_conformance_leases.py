"""What holds for the leases of every model in the catalog, and for writes taken in runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from rig import Rig, Variant, spans_ns, steps, values, variants

from devserver.models import Device, catalog
from devserver.models.lease import LANES, Lease

EPOCH_NS = 1_709_164_799_750_000_000  # a quarter of a second before 29 February 2024

some = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)

Place = tuple[str, int]


def places(device: Device) -> Iterator[Place]:
    """Every byte, lane by lane."""
    for region in device.regions:
        yield from ((region.name, offset) for offset in range(region.size))


def leased(device: Device) -> set[Place]:
    return {
        (region.name, offset)
        for region in device.regions
        for offset in range(region.size)
        if region.may_be_leased(offset)
    }


every_lessor = pytest.mark.parametrize(
    "variant", [v for v in variants() if leased(catalog.find(v.kind)())], ids=str
)


def granted(rig: Rig) -> dict[Place, Lease]:
    """The leases that the device gives now of places where it declares any."""
    found = {place: rig.device.lease(*place, rig.now_ns) for place in leased(rig.device)}
    return {place: lease for place, lease in found.items() if lease is not None}


def used_rig(variant: Variant, data: Any) -> Rig:
    rig = Rig(variant, EPOCH_NS)
    for step in data.draw(steps(variant)):
        rig.do(step)
    return rig


def holds(rig: Rig, place: Place, lease: Lease, at_ns: int) -> None:
    """The model, asked at that time, answers as the lease does (of a pair, with its next byte)."""
    twin = rig.twin()
    twin.wait(at_ns - twin.now_ns)
    said = lease.at(at_ns) >> (8 if lease.pair and lease.high_next else 0) & 0xFF
    assert twin.read(*place, 1) == said, (place, lease, at_ns)


def until_next_event(rig: Rig, span_ns: int) -> int:
    """A time from now on at which the device has done nothing on its own yet."""
    due_ns = rig.device.deadline_ns()
    at_ns = rig.now_ns + span_ns
    return (
        at_ns if due_ns is None or not rig.device.leases_move_with_time else min(at_ns, due_ns - 1)
    )


@every_lessor
@some
@given(data=st.data())
def test_a_lease_answers_as_the_model_would_until_something_happens(
    variant: Variant, data: Any
) -> None:
    rig = used_rig(variant, data)
    at_ns = until_next_event(rig, data.draw(spans_ns))
    for place, lease in granted(rig).items():
        assert lease.covers(rig.now_ns)
        if at_ns >= rig.now_ns and lease.covers(at_ns):
            holds(rig, place, lease, at_ns)


@every_lessor
@some
@given(data=st.data())
def test_asking_for_a_lease_changes_nothing(variant: Variant, data: Any) -> None:
    rig = used_rig(variant, data)
    before, said = rig.twin(), len(rig.said)
    asked = granted(rig)
    assert granted(rig) == asked
    assert len(rig.said) == said
    for place in places(rig.device):
        assert rig.read(*place, 1) == before.read(*place, 1), place


@every_lessor
@some
@given(data=st.data())
def test_a_read_that_a_lease_answers_has_no_effect_unless_the_lease_says_so(
    variant: Variant, data: Any
) -> None:
    rig = used_rig(variant, data)
    for place, lease in granted(rig).items():
        if lease.is_changed_by_reading():
            continue
        twin = rig.twin()
        twin.read(*place, 1)
        assert twin.said == []
        untouched = rig.twin()
        rest = [other for other in places(rig.device) if other != place]
        assert [twin.read(*at, 1) for at in rest] == [untouched.read(*at, 1) for at in rest]


@every_lessor
@some
@given(data=st.data())
def test_writes_to_lanes_that_a_lease_calls_unaffected_or_steady_leave_it_true(
    variant: Variant, data: Any
) -> None:
    rig = used_rig(variant, data)
    lanes = list(places(rig.device))[:LANES]
    writes = st.lists(st.tuples(st.integers(0, len(lanes) - 1), values), min_size=1, max_size=4)
    written = dict(data.draw(writes))
    for lane, value in written.items():  # what the client last wrote itself
        rig.write(*lanes[lane], 1, value)
    leases, later = granted(rig), data.draw(writes)
    span_ns = data.draw(spans_ns)
    for place, lease in leases.items():
        if lease.is_changed_by_reading():
            continue
        twin = rig.twin()
        last = dict(written)
        for lane, value in later:
            if lease.steady >> lane & 1 and lane in last:
                twin.write(*lanes[lane], 1, last[lane])
            elif lease.is_unaffected_by(lane):
                twin.write(*lanes[lane], 1, value)
                last[lane] = value
        at_ns = until_next_event(twin, span_ns)
        if at_ns >= twin.now_ns and lease.covers(at_ns):
            holds(twin, place, lease, at_ns)


def runs(device: Device) -> list[Place]:
    """Where a model takes many bytes at once, in one bank or in all."""
    return [place for place in places(device) if device.has_run_writer(*place)]


@pytest.mark.parametrize(
    "variant", [v for v in variants() if runs(catalog.find(v.kind)())], ids=str
)
@some
@given(data=st.data())
def test_a_run_of_writes_is_the_same_as_one_after_the_other(variant: Variant, data: Any) -> None:
    rig = used_rig(variant, data)
    place = data.draw(st.sampled_from(runs(rig.device)))
    text = data.draw(st.binary(min_size=1, max_size=20))
    one, other = rig.twin(), rig.twin()
    run = other.device.run_writer(*place)
    assume(run is not None)
    if not run(text, [rig.now_ns] * len(text)):
        assert other.device.save() == rig.device.save()
        assert other.said == []
        return
    for value in text:
        one.write(*place, 1, value)
    assert other.device.save() == one.device.save()
    assert said_together(other) == said_together(one)
    assert other.levels == one.levels


def said_together(rig: Rig) -> dict[tuple[Any, ...], bytes]:
    """What each channel was sent in all; a run says nothing else in between."""
    total: dict[tuple[Any, ...], bytes] = {}
    for what, name, said in rig.said:
        assert what == "emit"
        total[what, name] = total.get((what, name), b"") + said
    return total
