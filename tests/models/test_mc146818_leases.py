"""Leases of the clock's data port: what they say is what the model would have answered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtc_bench import DIVIDER_RESET, H24, RUNNING, SECOND_NS, Chip

from devserver.models.lease import Lease
from devserver.models.mc146818.calendar import Cmos
from devserver.models.mc146818.device import UIP_NS, RegisterA, RegisterB, RegisterD

INDEX, DATA = 0, 1
some = settings(max_examples=80, deadline=None)
places = st.one_of(st.sampled_from(list(Cmos)), st.integers(0, 127))
spans_ns = st.one_of(
    st.integers(0, 300_000), st.integers(0, 3 * SECOND_NS), st.just(90_000 * SECOND_NS)
)
puts = st.one_of(
    st.tuples(places, st.integers(0, 255)),
    st.tuples(st.just(Cmos.REGISTER_A), st.sampled_from([RUNNING, RUNNING | 6, DIVIDER_RESET])),
    st.tuples(st.just(Cmos.REGISTER_B), st.sampled_from([H24, H24 | RegisterB.SET, H24 | 0x14])),
)
histories = st.lists(st.tuples(puts, spans_ns), max_size=5)


def chip_with(epoch_ns: int, history: list[tuple[tuple[int, int], int]]) -> Chip:
    chip = Chip(epoch_ns)
    for (place, value), span_ns in history:
        chip.put(place, value)
        chip.run_to(chip.now_ns + span_ns)
    return chip


def leased(chip: Chip, place: int) -> Lease | None:
    chip.device.write("io", INDEX, 1, place, chip.now_ns)
    lease = chip.device.lease("io", DATA, chip.now_ns)
    assert lease is None or lease.covers(chip.now_ns)
    return lease


def granted(chip: Chip, place: int) -> Lease:
    lease = leased(chip, place)
    assert lease is not None
    return lease


def moments(chip: Chip, lease: Lease, spans: list[int]) -> list[int]:
    """Some VM times from now on: around the second's turn and the rise of UIP, and anywhere."""
    turn_ns = -chip.device.state.phase_ns % SECOND_NS + chip.now_ns // SECOND_NS * SECOND_NS
    marks = [turn_ns + n * SECOND_NS - uip for n in (-1, 0, 1, 2) for uip in (0, UIP_NS)]
    times = [mark + by for mark in marks for by in (-1, 0, 1)]
    times += [chip.now_ns + span for span in spans] + [lease.until_ns - 1, chip.now_ns]
    return sorted(at for at in times if at >= chip.now_ns and lease.covers(at))


@some
@given(
    epoch_ns=st.integers(0, 1 << 60),
    history=histories,
    place=places,
    spans=st.lists(spans_ns, max_size=5),
)
def test_a_lease_says_what_the_data_port_reads_from_then_on(
    epoch_ns: int, history: list[tuple[tuple[int, int], int]], place: int, spans: list[int]
) -> None:
    chip = chip_with(epoch_ns, history)
    lease = leased(chip, place)
    assert (lease is None) == (place == Cmos.REGISTER_C)
    if lease is None:
        return
    for at_ns in moments(chip, lease, spans):
        twin = chip.twin()
        twin.run_to(at_ns)
        assert twin.get(place) == lease.at(at_ns), at_ns
        assert leased(twin, place) == lease


@some
@given(history=histories, place=places, span_ns=spans_ns)
def test_asking_for_a_lease_changes_nothing_even_at_a_later_time(
    history: list[tuple[tuple[int, int], int]], place: int, span_ns: int
) -> None:
    chip = chip_with(0, history)
    chip.device.write("io", INDEX, 1, place, chip.now_ns)
    before = chip.device.save()
    chip.device.lease("io", DATA, chip.now_ns + span_ns)
    assert chip.device.save() == before


def test_the_time_is_leased_until_the_next_update_only() -> None:
    chip = Chip(12_300_000_000)
    for second in (12, 13, 14):
        lease = granted(chip, Cmos.SECONDS)
        assert lease.value == int(str(second), 16)
        assert lease.until_ns == (second - 11) * SECOND_NS - 300_000_000
        chip.run_to(lease.until_ns)
        assert not lease.covers(chip.now_ns)


@pytest.mark.parametrize("place", [Cmos.SECONDS, Cmos.REGISTER_A, Cmos.YEAR])
def test_a_stopped_clock_is_leased_for_good(place: Cmos) -> None:
    chip = Chip(12_300_000_000)
    chip.put(Cmos.REGISTER_B, H24 | RegisterB.SET)
    lease = granted(chip, place)
    assert (lease.until_ns, lease.terms) == (0, ())
    chip.put(Cmos.REGISTER_B, H24)
    chip.put(Cmos.REGISTER_A, DIVIDER_RESET)
    lease = granted(chip, place)
    assert (lease.until_ns, lease.terms) == (0, ())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (Cmos.SECONDS_ALARM, 0xC0),
        (Cmos.MINUTES_ALARM, 0x12),
        (Cmos.HOURS_ALARM, 0x23),
        (Cmos.REGISTER_B, H24),
        (Cmos.BASE_MEMORY, 0x80),
    ],
)
def test_what_time_does_not_change_is_leased_for_good(place: Cmos, value: int) -> None:
    chip = Chip()
    chip.put(place, value)
    assert granted(chip, place) == Lease(value=value, steady=1 << INDEX)


def test_register_d_is_leased_and_register_c_is_not_as_reading_clears_it() -> None:
    assert granted(Chip(), Cmos.REGISTER_D).value == RegisterD.VRT
    assert leased(Chip(), Cmos.REGISTER_C) is None


def test_waiting_for_uip_needs_no_new_lease_and_may_select_register_a_each_time() -> None:
    chip = Chip(12_300_000_000)
    chip.run_to(SECOND_NS)
    lease = granted(chip, Cmos.REGISTER_A)
    assert lease.steady == 1 << INDEX
    assert not lease.until_ns
    turn_ns = 1_700_000_000
    levels = [lease.at(turn_ns + by) & RegisterA.UIP for by in (-UIP_NS - 1, -UIP_NS, -1, 0)]
    assert levels == [0, RegisterA.UIP, RegisterA.UIP, 0]
    chip.run_to(5 * SECOND_NS)
    assert granted(chip, Cmos.REGISTER_A) == lease


def test_the_divider_started_anew_gives_another_lease_of_register_a() -> None:
    chip = Chip()
    chip.run_to(10 * SECOND_NS + 123)
    first = granted(chip, Cmos.REGISTER_A)
    chip.put(Cmos.REGISTER_A, DIVIDER_RESET)
    chip.put(Cmos.REGISTER_A, RUNNING)
    second = granted(chip, Cmos.REGISTER_A)
    assert second != first
    half_a_second_on = chip.now_ns + SECOND_NS // 2
    assert second.at(half_a_second_on - 1) & RegisterA.UIP
    assert not second.at(half_a_second_on) & RegisterA.UIP
