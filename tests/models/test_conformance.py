"""What holds for every device model in the catalog, third parties' included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import SIZES, Rig, Variant, steps, variants

from devserver.models import Device, Policy, Region, Register, catalog
from devserver.models.device import StateError

EPOCH_NS = 1_709_164_799_750_000_000  # a quarter of a second before 29 February 2024

every_variant = pytest.mark.parametrize("variant", variants(), ids=str)
every_kind = pytest.mark.parametrize("kind", catalog.kinds())
some = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)

#: Registers whose fresh value is not their declared reset value, and why.
FRESH_VALUE_DIFFERS: dict[tuple[str, str], str] = {}

#: Posted registers whose write may lower a line, and why a guest can't tell when that happens.
POSTED_LOWERS_LINE: dict[tuple[str, int], str] = {
    ("uart16550", 0): "a write of THR takes back an interrupt that asks for just that write, on a "
    "line that is edge-triggered on the ISA bus: the guest sees the next edge, not the fall",
    ("pit8254", 3): "a control word may make OUT 0 low, on an edge-triggered line too",
    **{
        ("i8259", 16 + irq): "a line of a device, and no register: the guest has no such access"
        for irq in range(16)
    },
}


def registers(model: type[Device]) -> Iterator[tuple[Region, Register]]:
    for region in model.regions:
        for register in region.registers:
            yield region, register


def answered_by(region: Region, wanted: Register) -> bool:
    """Whether a read in the bank of ``wanted`` reaches it, not a bank's own in its place."""
    return not any(
        other.bank != "" and other.bank == wanted.bank and other is not wanted
        for other in region.registers
        if other.access.readable
        and other.offset < wanted.offset + wanted.width
        and wanted.offset < other.offset + other.width
    )


# -- declarations -----------------------------------------------------------------------------


@every_kind
def test_a_model_is_found_under_its_own_kind_and_documents_itself(kind: str) -> None:
    model = catalog.find(kind)
    assert model.kind == kind
    assert model.version >= 1
    assert model.__doc__
    assert model.__module__ != "__main__"


@every_kind
def test_every_register_has_a_source_a_legal_width_and_a_reset_value_that_fits(kind: str) -> None:
    for _, register in registers(catalog.find(kind)):
        assert register.source, register.name
        assert register.width in SIZES, register.name
        assert 0 <= register.reset < 1 << 8 * register.width, register.name


@every_kind
def test_names_of_regions_channels_and_outputs_are_unique(kind: str) -> None:
    model = catalog.find(kind)
    names = [region.name for region in model.regions]
    for group in (names, model.outputs, model.feeds, model.emits):
        assert len(set(group)) == len(group)


@every_kind
def test_no_two_registers_answer_the_same_access(kind: str) -> None:
    for region in catalog.find(kind).regions:
        for readable in (True, False):
            claimed: set[tuple[str, int]] = set()
            for register in region.registers:
                access = register.access
                if access.readable if readable else access.writable:
                    span = range(register.offset, register.offset + register.width)
                    places = {(register.bank, offset) for offset in span}
                    assert not places & claimed, register.name
                    claimed |= places


# -- fresh devices and reset ------------------------------------------------------------------


@every_kind
def test_a_fresh_device_reads_as_declared(kind: str) -> None:
    for region, register in registers(catalog.find(kind)):
        if (kind, register.name) in FRESH_VALUE_DIFFERS or not answered_by(region, register):
            continue
        device = pinned(kind, register.bank)
        value = device.read(region.name, register.offset, register.width, 0)
        if register.access.readable:
            assert value == register.reset, register.name


def pinned(kind: str, bank: str) -> Device:
    """A fresh device that shows this bank; one that has banks chooses for itself when ''."""
    model = catalog.find(kind)
    if bank == "":
        return model()
    shows_bank: type[Device] = type("Pinned", (model,), {"bank": lambda self: bank})
    return shows_bank()


@every_variant
def test_a_fresh_device_says_nothing_and_its_lines_are_low(variant: Variant) -> None:
    rig = Rig(variant, EPOCH_NS)
    assert rig.said == []


@every_variant
@some
@given(data=st.data())
def test_reset_gives_a_fresh_device_whatever_was_before(variant: Variant, data: Any) -> None:
    rig, fresh = Rig(variant, EPOCH_NS), Rig(variant, EPOCH_NS)
    for step in data.draw(steps(variant)):
        rig.do(step)
    rig.device.reset()
    assert rig.device.save() == fresh.device.save()
    assert rig.device.deadline_ns() == fresh.device.deadline_ns()
    assert not any(rig.levels.values())


@every_kind
def test_two_devices_of_a_kind_share_no_state(kind: str) -> None:
    one, other = Rig(Variant(kind)), Rig(Variant(kind))
    before = msgpack.packb(other.device.save())
    for region, register in registers(type(one.device)):
        one.write(region.name, register.offset, register.width, 0xA5A5A5A5A5A5A5A5)
    assert msgpack.packb(other.device.save()) == before


# -- whatever the guest does ------------------------------------------------------------------


@every_variant
@some
@given(data=st.data())
def test_nothing_that_a_guest_or_the_world_does_breaks_a_model(variant: Variant, data: Any) -> None:
    rig = Rig(variant, EPOCH_NS)
    for step in data.draw(steps(variant, max_size=60)):
        rig.do(step)  # which holds every answer and every deadline to the rules


@every_variant
def test_every_width_is_answered_at_every_offset_and_beyond_the_end(variant: Variant) -> None:
    rig = Rig(variant, EPOCH_NS)
    for region in rig.device.regions:
        for offset in range(region.size + 9):
            for size in SIZES:
                rig.write(region.name, offset, size, 0x8421_7BDE_8421_7BDE)
                value = rig.read(region.name, offset, size)
                outside = max(0, offset + size - max(offset, region.size))
                ones = (1 << 8 * outside) - 1
                assert value >> 8 * (size - outside) == ones, (region.name, offset, size)


@every_variant
@some
@given(data=st.data())
def test_the_guest_cannot_tell_a_posted_write_from_one_it_waited_for(
    variant: Variant, data: Any
) -> None:
    """Whatever a write does at once to the machine, the guest could look for right behind it."""
    rig = Rig(variant, EPOCH_NS)
    for step in data.draw(steps(variant)):
        before, high = len(rig.said), {name for name, level in rig.levels.items() if level}
        rig.do(step)
        if step[0] != "write" or not posted(rig.device, *step[1:4]):
            continue
        assert not [said for said in rig.said[before:] if said[0] == "signal"]
        if (variant.kind, step[2]) not in POSTED_LOWERS_LINE:
            assert all(rig.levels[name] for name in high)


def posted(device: Device, name: str, offset: int, size: int) -> bool:
    (region,) = [region for region in device.regions if region.name == name]
    return size == 1 and region.write_policy(offset) is not Policy.FINISH


# -- snapshots --------------------------------------------------------------------------------


@every_variant
@some
@given(data=st.data())
def test_a_twin_restored_from_a_snapshot_continues_identically(variant: Variant, data: Any) -> None:
    rig = Rig(variant, EPOCH_NS)
    for step in data.draw(steps(variant)):
        rig.do(step)
    twin = rig.twin()
    assert twin.said == [], "loading moves no line and emits nothing"
    assert twin.device.save() == rig.device.save()
    rig.said.clear()
    for step in data.draw(steps(variant)):
        assert twin.do(step) == rig.do(step)
        assert twin.said == rig.said
        assert twin.device.deadline_ns() == rig.device.deadline_ns()
    assert twin.device.save() == rig.device.save()


@every_variant
@some
@given(data=st.data())
def test_taking_a_snapshot_changes_nothing(variant: Variant, data: Any) -> None:
    rig, watched = Rig(variant, EPOCH_NS), Rig(variant, EPOCH_NS)
    for step in data.draw(steps(variant)):
        watched.device.save()
        assert watched.do(step) == rig.do(step)
    assert watched.said == rig.said


@every_kind
@pytest.mark.parametrize(
    "change", [{"kind": "another"}, {"version": 1 << 20}, {"version": None}, {"state": []}]
)
def test_a_snapshot_of_another_kind_or_a_newer_version_is_refused(
    kind: str, change: dict[str, object]
) -> None:
    device = catalog.find(kind)()
    before = device.save()
    with pytest.raises(StateError, match=kind):
        device.load({**before, **change})
    assert device.save() == before


@every_kind
def test_a_snapshot_with_any_part_missing_or_of_a_wrong_type_is_refused(kind: str) -> None:
    device = catalog.find(kind)()
    before = device.save()
    tried = 0
    for damaged in damages(before["state"]):
        with pytest.raises(StateError):
            device.load({**before, "state": damaged})
        assert device.save() == before
        tried += 1
    assert tried > 0


def damages(plain: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    """The map with one thing wrong, for every thing that can be, maps within it included."""
    yield {**plain, "no such field": 1}
    for name, value in plain.items():
        yield {other: plain[other] for other in plain if other != name}
        yield {**plain, name: 1.5}
        if isinstance(value, dict):
            for damaged in damages(value):
                yield {**plain, name: damaged}
