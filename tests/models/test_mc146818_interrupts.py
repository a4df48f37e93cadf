"""The real-time clock's flags, interrupts and alarm, by the rules of its data sheet."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtc_bench import (
    H24,
    RUNNING,
    SECOND_NS,
    Chip,
    formats,
    moments,
)

from devserver.models.mc146818.calendar import Cmos, Format
from devserver.models.mc146818.device import RegisterB, RegisterC

#: The data sheet's table of periodic interrupt rates at 32.768 kHz, for RS 1 to 15.
RATES_HZ = [256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2]


# -- interrupts and flags -----------------------------------------------------------------------


def test_update_ended_interrupts_once_a_second_when_acknowledged() -> None:
    chip = Chip(epoch=250_000_000)
    chip.put(Cmos.REGISTER_B, RegisterB.UIE | H24)
    chip.run(3, acknowledge=True)
    assert chip.rises_ns == [750_000_000, 1_750_000_000, 2_750_000_000]


def test_reading_c_tells_the_flags_clears_them_and_lowers_the_line() -> None:
    chip = Chip()
    chip.put(Cmos.REGISTER_A, RUNNING)
    chip.put(Cmos.REGISTER_B, RegisterB.UIE | H24)
    chip.run(1)
    assert chip.level
    assert chip.get(Cmos.REGISTER_C) == RegisterC.IRQF | RegisterC.UF
    assert not chip.level
    assert chip.get(Cmos.REGISTER_C) == 0


def test_the_line_stays_high_and_costs_nothing_until_c_is_read() -> None:
    chip = Chip()
    chip.put(Cmos.REGISTER_A, RUNNING | 3)
    chip.put(Cmos.REGISTER_B, RegisterB.PIE | RegisterB.UIE | H24)
    chip.run(1000)
    assert len(chip.rises_ns) == chip.wakeups == 1


def test_flags_are_set_without_being_enabled_and_enabling_one_that_is_set_interrupts() -> None:
    chip = Chip()
    chip.put(Cmos.SECONDS_ALARM, 0x02)
    chip.put(Cmos.REGISTER_A, RUNNING | 6)
    chip.run(3)
    assert chip.device.deadline_ns() is None
    twin = chip.twin()
    assert chip.get(Cmos.REGISTER_C) == RegisterC.PF | RegisterC.AF | RegisterC.UF
    twin.put(Cmos.REGISTER_B, RegisterB.AIE | H24)
    assert twin.level


@pytest.mark.parametrize("rate", range(1, 16))
def test_periodic_interrupts_are_exact_at_every_rate(rate: int) -> None:
    chip = Chip(epoch=123_456_789)
    chip.put(Cmos.REGISTER_A, RUNNING | rate)
    chip.put(Cmos.REGISTER_B, RegisterB.PIE | H24)
    count = 64
    period_ns = Fraction(SECOND_NS, RATES_HZ[rate - 1])
    chip.run_to(int(period_ns * count), acknowledge=True)
    assert len(chip.rises_ns) == count
    first = chip.rises_ns[0]
    assert all(abs(at - first - n * period_ns) < 1 for n, at in enumerate(chip.rises_ns))


def test_a_long_run_of_periodic_interrupts_does_not_drift() -> None:
    chip = Chip()
    chip.put(Cmos.REGISTER_A, RUNNING | 6)
    chip.put(Cmos.REGISTER_B, RegisterB.PIE | H24)
    chip.run(5, acknowledge=True)
    assert len(chip.rises_ns) == 5 * 1024


@pytest.mark.parametrize("rate", [13, 14, 15])
def test_a_periodic_interrupt_comes_half_a_period_before_uip(rate: int) -> None:
    chip = Chip()
    chip.put(Cmos.REGISTER_A, RUNNING | rate)
    chip.put(Cmos.REGISTER_B, RegisterB.PIE | H24)
    chip.run(1, acknowledge=True)
    half_ns = SECOND_NS // RATES_HZ[rate - 1] // 2
    assert 0 <= chip.rises_ns[-1] + half_ns - (SECOND_NS - 244_140) <= 1


def test_rate_0_has_no_periodic_interrupt() -> None:
    chip = Chip()
    chip.put(Cmos.REGISTER_A, RUNNING)
    chip.put(Cmos.REGISTER_B, RegisterB.PIE | H24)
    chip.run(2)
    assert not chip.get(Cmos.REGISTER_C) & RegisterC.PF


# -- the alarm ----------------------------------------------------------------------------------

alarm_field = st.one_of(st.none(), st.integers(0, 59))
alarms = st.tuples(st.one_of(st.none(), st.integers(0, 23)), alarm_field, alarm_field)


@given(moments, formats, alarms, st.integers(0xC0, 0xFF))
@settings(max_examples=50, deadline=None)
def test_the_alarm_comes_at_the_next_matching_second(
    moment: datetime, flags: int, alarm: tuple[int | None, ...], dont_care: int
) -> None:
    moment = moment.replace(microsecond=0)
    form = Format(binary=bool(flags & RegisterB.DM), hours24=bool(flags & H24))
    chip = Chip()
    chip.show(moment, flags)
    encoders = (form.encode_hour, form.encode, form.encode)
    places = (Cmos.HOURS_ALARM, Cmos.MINUTES_ALARM, Cmos.SECONDS_ALARM)
    for place, field, encode in zip(places, alarm, encoders, strict=True):
        chip.put(place, dont_care if field is None else encode(field))
    chip.put(Cmos.REGISTER_B, flags | RegisterB.AIE)
    chip.run(86400)

    start = moment.hour * 3600 + moment.minute * 60 + moment.second

    def matches(after: int) -> bool:
        minutes, second = divmod(start + after, 60)
        shown = (minutes // 60 % 24, minutes % 60, second)
        return all(want in (None, have) for want, have in zip(alarm, shown, strict=True))

    expected = next(after for after in range(1, 86401) if matches(after))
    assert chip.rises_ns == [expected * SECOND_NS]
    assert chip.get(Cmos.REGISTER_C) & RegisterC.AF


@pytest.mark.parametrize("minute", [0x60, 0x2A, 0xBF])
def test_an_alarm_that_the_clock_can_never_show_never_comes(minute: int) -> None:
    chip = Chip()
    chip.put(Cmos.MINUTES_ALARM, minute)
    chip.put(Cmos.REGISTER_B, RegisterB.AIE | H24)
    assert chip.device.deadline_ns() is None
    chip.run(2 * 86400)
    assert not chip.get(Cmos.REGISTER_C) & RegisterC.AF


def test_an_alarm_set_while_the_clock_runs_moves_the_deadline() -> None:
    chip = Chip()
    chip.put(Cmos.REGISTER_B, RegisterB.AIE | H24)
    assert chip.device.deadline_ns() == 86400 * SECOND_NS
    chip.put(Cmos.SECONDS_ALARM, 0x30)
    assert chip.device.deadline_ns() == 30 * SECOND_NS


@pytest.mark.parametrize(("hour", "rings_s"), [(1, [1]), (2, []), (3, [3601])])
def test_the_alarm_follows_the_time_that_daylight_saving_shows(
    hour: int, rings_s: list[int]
) -> None:
    chip = Chip()
    chip.show(datetime(1985, 4, 28, 0, 59, 59, tzinfo=UTC), RegisterB.DSE | H24)
    chip.put(Cmos.HOURS_ALARM, hour)
    chip.put(Cmos.REGISTER_B, RegisterB.DSE | H24 | RegisterB.AIE)
    chip.run(2 * 3600)
    assert chip.rises_ns == [after * SECOND_NS for after in rings_s]
