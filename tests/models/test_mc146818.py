"""The real-time clock's time, ports and snapshots, against the calendar of Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rtc_bench import (
    DIVIDER_RESET,
    H24,
    RUNNING,
    SECOND_NS,
    TIME_PLACES,
    Chip,
    epoch_ns,
    formats,
    moments,
    registers,
)

from devserver.models.device import OptionError, Policy, StateError
from devserver.models.mc146818.calendar import Cmos
from devserver.models.mc146818.device import RegisterA, RegisterB, RegisterC

#: Eight ticks of 32.768 kHz, the data sheet's 244 us, in whole nanoseconds.
BEFORE_UPDATE_NS = 244_140

# -- time and calendar --------------------------------------------------------------------------


@given(moments, st.integers(0, 40 * 365 * 86400 * SECOND_NS))
def test_time_is_the_epoch_plus_vm_time(moment: datetime, later_ns: int) -> None:
    chip = Chip(epoch_ns(moment))
    chip.run_to(later_ns)
    assert chip.time() == registers(moment + timedelta(microseconds=later_ns // 1000), H24)


@given(moments, formats, st.integers(0, 3 * 365 * 86400))
def test_a_set_clock_counts_on_in_every_format(moment: datetime, flags: int, seconds: int) -> None:
    chip = Chip()
    chip.show(moment, flags)
    chip.run(seconds)
    assert chip.time() == registers(moment + timedelta(seconds=seconds), flags)


@given(st.lists(st.integers(0, 255), min_size=8, max_size=8), st.integers(0, 7), st.data())
def test_time_does_not_depend_on_when_it_is_looked_at(
    garbage: list[int], flags: int, data: st.DataObject
) -> None:
    chip = Chip()
    for place, byte in zip(TIME_PLACES, garbage, strict=True):
        chip.put(place, byte)
    chip.put(Cmos.REGISTER_B, flags)
    looked_at = chip.twin()
    pauses = data.draw(st.lists(st.sampled_from([0.3, 1, 59, 60, 3601, 86400, 2.7e6]), max_size=8))
    for pause in pauses:
        chip.run(pause)
        looked_at.run(pause)
        looked_at.time()
    assert chip.time() == looked_at.time()
    assert chip.get(Cmos.REGISTER_C) == looked_at.get(Cmos.REGISTER_C)


def test_fields_that_no_carry_reaches_keep_what_was_written() -> None:
    chip = Chip()
    chip.put(Cmos.MONTH, 0x77)
    chip.put(Cmos.CENTURY, 0xFF)
    chip.run(3600)
    assert (chip.get(Cmos.MONTH), chip.get(Cmos.CENTURY)) == (0x77, 0xFF)


def test_a_field_that_a_carry_reaches_is_made_legal_even_if_it_comes_round_to_the_same() -> None:
    chip = Chip()
    chip.put(Cmos.MINUTES, 0x2A)  # no BCD; its digits weigh 30
    chip.run(3600)
    assert chip.get(Cmos.MINUTES) == 0x30


def test_the_century_turns_with_the_year() -> None:
    chip = Chip(epoch_ns(datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)))
    chip.run(1)
    assert (chip.get(Cmos.CENTURY), chip.get(Cmos.YEAR)) == (0x20, 0x00)


def test_set_holds_the_time_and_clears_update_enable() -> None:
    chip = Chip()
    before = chip.time()
    chip.put(Cmos.REGISTER_B, RegisterB.SET | RegisterB.UIE | H24)
    chip.run(5)
    assert chip.time() == before
    assert chip.get(Cmos.REGISTER_B) == RegisterB.SET | H24
    assert not chip.get(Cmos.REGISTER_C) & RegisterC.UF
    chip.put(Cmos.REGISTER_B, H24)
    chip.run(1)
    assert chip.get(Cmos.SECONDS) == before[0] + 1


def test_divider_reset_stops_the_clock_and_the_first_update_is_500_ms_after_its_release() -> None:
    chip = Chip()
    chip.run(0.9)
    chip.put(Cmos.REGISTER_A, DIVIDER_RESET)
    chip.run(10)
    assert chip.get(Cmos.SECONDS) == 0
    chip.put(Cmos.REGISTER_A, RUNNING)
    chip.run_to(chip.now_ns + SECOND_NS // 2 - 1)
    assert chip.get(Cmos.SECONDS) == 0
    chip.run_to(chip.now_ns + 1)
    assert chip.get(Cmos.SECONDS) == 1


@pytest.mark.parametrize("held", [0x30, 0x40, 0x50, 0x60, 0x70])
def test_every_divider_setting_but_the_three_time_bases_holds_the_chain(held: int) -> None:
    chip = Chip()
    chip.put(Cmos.REGISTER_A, held | 0x06)
    chip.put(Cmos.REGISTER_B, RegisterB.PIE | RegisterB.UIE | H24)
    assert chip.device.deadline_ns() is None
    chip.run(10)
    assert (chip.get(Cmos.SECONDS), chip.get(Cmos.REGISTER_C)) == (0, 0)


# -- update in progress -------------------------------------------------------------------------


@given(st.integers(0, 10**12), st.integers(0, 3 * SECOND_NS))
def test_a_reader_that_sees_uip_clear_has_244_us(epoch: int, at_ns: int) -> None:
    chip = Chip(epoch)
    chip.run_to(at_ns)
    assume(not chip.get(Cmos.REGISTER_A) & RegisterA.UIP)
    seen = chip.time()
    chip.run_to(at_ns + 244_000)
    assert chip.time() == seen


def test_uip_is_set_for_244_us_and_ends_with_the_update() -> None:
    chip = Chip()
    uip = []
    for at_ns in (
        SECOND_NS - BEFORE_UPDATE_NS - 1,
        SECOND_NS - BEFORE_UPDATE_NS,
        SECOND_NS - 1,
        SECOND_NS,
    ):
        chip.run_to(at_ns)
        uip.append((chip.get(Cmos.REGISTER_A) >> 7, chip.get(Cmos.SECONDS)))
    assert uip == [(0, 0), (1, 0), (1, 0), (0, 1)]


def test_uip_is_clear_while_no_update_can_come() -> None:
    chip = Chip()
    chip.run_to(SECOND_NS - 1)
    chip.put(Cmos.REGISTER_B, RegisterB.SET)
    assert not chip.get(Cmos.REGISTER_A) & RegisterA.UIP
    chip.put(Cmos.REGISTER_B, H24)
    chip.put(Cmos.REGISTER_A, DIVIDER_RESET | RegisterA.UIP)
    assert chip.get(Cmos.REGISTER_A) == DIVIDER_RESET


# -- daylight saving ----------------------------------------------------------------------------

DST = RegisterB.DSE | H24


def test_on_the_last_sunday_in_april_the_hour_after_two_is_left_out() -> None:
    before = datetime(1985, 4, 28, 1, 59, 59, tzinfo=UTC)
    chip = Chip()
    chip.show(before, DST)
    chip.run(1)
    assert chip.time() == registers(before + timedelta(hours=1, seconds=1), DST)


def test_on_the_last_sunday_in_october_the_hour_before_two_comes_twice() -> None:
    before = datetime(1985, 10, 27, 1, 59, 59, tzinfo=UTC)
    chip = Chip()
    chip.show(before, DST)
    chip.run(1)
    assert chip.time() == registers(before.replace(hour=1, minute=0, second=0), DST)
    chip.run(3600)
    assert chip.time() == registers(before.replace(hour=2, minute=0, second=0), DST)


def test_a_clock_set_back_by_hand_falls_back_anew() -> None:
    before = datetime(1985, 10, 27, 1, 59, 59, tzinfo=UTC)
    chip = Chip()
    for _ in range(2):
        chip.show(before, DST)
        chip.run(1)
        assert chip.time() == registers(before.replace(hour=1, minute=0, second=0), DST)


def test_a_year_of_daylight_saving_ends_on_time() -> None:
    chip = Chip()
    chip.show(datetime(1985, 1, 1, tzinfo=UTC), DST)
    chip.run(365 * 86400)
    assert chip.time() == registers(datetime(1986, 1, 1, tzinfo=UTC), DST)


# -- ports and memory ---------------------------------------------------------------------------


def test_the_index_port_reads_all_ones_masks_bit_7_and_may_be_posted() -> None:
    chip = Chip()
    chip.put(0x40, 0x5A)
    chip.device.write("io", 0, 1, 0x80 | 0x40, 0)
    assert chip.device.read("io", 0, 2, 0) == 0x5AFF
    assert chip.device.regions[0].write_policy(0) is Policy.COALESCED
    assert chip.device.regions[0].write_policy(1) is Policy.FINISH


def test_a_word_written_to_the_index_port_sets_index_and_data() -> None:
    chip = Chip()
    chip.device.write("io", 0, 2, 0xA55D, 0)
    assert chip.get(0x5D) == 0xA5


@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), max_size=40))
def test_memory_keeps_what_is_written(writes: list[tuple[int, int]]) -> None:
    chip = Chip()
    taken = {*range(0x0E), Cmos.CENTURY}
    kept = {place: value for place, value in writes if place not in taken}
    for place, value in kept.items():
        chip.put(place, value)
    chip.run(100)
    assert {place: chip.get(place) for place in kept} == kept


def test_registers_c_and_d_and_the_top_bit_of_the_seconds_are_read_only() -> None:
    chip = Chip()
    for place in (Cmos.REGISTER_C, Cmos.REGISTER_D, Cmos.SECONDS):
        chip.put(place, 0xFF)
    assert chip.get(Cmos.REGISTER_C) == 0x00
    assert chip.get(Cmos.REGISTER_D) == 0x80
    assert chip.get(Cmos.SECONDS) == 0x7F


@pytest.mark.parametrize(
    ("memory_bytes", "base_kib", "above_1m_kib", "above_16m_64k"),
    [
        (512 << 10, 512, 0, 0),
        (1 << 20, 640, 0, 0),
        (16 << 20, 640, 15 << 10, 0),
        (2 << 30, 640, 0xFFFF, (2 << 14) - 256),
    ],
)
def test_memory_size_is_where_a_bios_looks_for_it(
    memory_bytes: int, base_kib: int, above_1m_kib: int, above_16m_64k: int
) -> None:
    chip = Chip(memory_bytes=memory_bytes)

    def word(place: int) -> int:
        return chip.get(place) | chip.get(place + 1) << 8

    assert word(0x15) == base_kib
    assert word(0x17) == word(0x30) == above_1m_kib
    assert word(0x34) == above_16m_64k


def test_a_negative_memory_size_is_refused() -> None:
    with pytest.raises(OptionError, match="memory_bytes is -1"):
        Chip(memory_bytes=-1)


# -- reset, snapshots, hostile guests -----------------------------------------------------------


def test_reset_gives_the_state_of_power_on_and_lowers_the_line() -> None:
    chip = Chip(epoch=5 * SECOND_NS)
    fresh = chip.device.save()
    chip.put(Cmos.REGISTER_B, RegisterB.UIE)
    chip.run(1)
    assert chip.level
    chip.device.reset()
    assert not chip.level
    assert chip.device.save() == fresh
    assert chip.device.deadline_ns() is None


@pytest.mark.parametrize(("name", "value"), [("memory", b"short"), ("index", 128), ("index", -1)])
def test_a_damaged_snapshot_is_refused_and_changes_nothing(name: str, value: object) -> None:
    chip = Chip()
    good = chip.device.save()
    with pytest.raises(StateError):
        chip.device.load({**good, "state": {**good["state"], name: value}})
    assert chip.device.save() == good


actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 0x0D), st.integers(0, 255)),
        st.tuples(st.just("put"), st.integers(0, 255), st.integers(0, 255)),
        st.tuples(st.just("get"), st.integers(0, 0x0D), st.just(0)),
        st.tuples(st.just("run"), st.integers(0, 100_000), st.just(0)),
    ),
    max_size=30,
)


def perform(chip: Chip, steps: list[tuple[str, int, int]]) -> list[object]:
    """Does the steps and tells all that a guest could see of them."""
    seen: list[object] = []
    for verb, what, value in steps:
        if verb == "put":
            chip.put(what, value)
        elif verb == "get":
            seen.append(chip.get(what))
        else:
            chip.run_to(chip.now_ns + what**2 * 977)  # from nothing to months
        seen.append((chip.level, chip.device.deadline_ns()))
    return seen


def test_a_restored_clock_has_the_deadline_of_the_saved_one() -> None:
    chip = Chip(epoch=250_000_000)
    chip.put(Cmos.REGISTER_B, RegisterB.UIE | H24)
    chip.run(0.5)
    assert chip.twin().device.deadline_ns() == chip.device.deadline_ns() == 750_000_000


@given(st.integers(0, 1 << 61), actions, actions)
def test_a_twin_made_from_a_snapshot_goes_on_identically(
    epoch: int, before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    chip = Chip(epoch)
    perform(chip, before)
    twin = chip.twin()
    assert perform(twin, after) == perform(chip, after)
    assert twin.device.save() == chip.device.save()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1), st.sampled_from([1, 2, 4, 8]),
                          st.integers(0, (1 << 64) - 1)), max_size=40))  # fmt: skip
def test_no_access_raises(accesses: list[tuple[bool, int, int, int]]) -> None:
    chip = Chip()
    for is_write, offset, size, value in accesses:
        if is_write:
            chip.device.write("io", offset, size, value & ((1 << 8 * size) - 1), chip.now_ns)
        else:
            assert 0 <= chip.device.read("io", offset, size, chip.now_ns) < 1 << 8 * size
        chip.run_to(chip.now_ns + value % SECOND_NS)
