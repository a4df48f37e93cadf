"""Our MC146818 beside QEMU's.

Every value that a step reads is compared, the level of the interrupt line after the step, and how
often the line rose during it. What is left out stands in ``qemu_differences``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_beside_ours import RTC_LINE, Ours, compare, few, flat
from qemu_differences import (
    CENTURY,
    REGISTER_A,
    REGISTER_B,
    REGISTER_C,
    REGISTER_D,
    RTC,
)
from qemu_pc import In, Out, Step, Wait, run

from devserver.models.mc146818.device import RegisterA, RegisterB

pytestmark = pytest.mark.qemu

CLOCK_SHIFT = 10
SECOND_NS = 1_000_000_000
HELD = 0x70  # the divider chain in reset
RUNNING = int(RegisterA.DV1)


def put(index: int, value: int) -> list[Step]:
    return [Out(RTC, index), Out(RTC + 1, value)]


def get(*indices: int) -> list[Step]:
    return [step for index in indices for step in (Out(RTC, index), In(RTC + 1))]


@dataclass(frozen=True)
class Moment:
    """A time to set the clock to, in the format that register B selects."""

    year: int = 2024
    month: int = 2
    day: int = 28
    hour: int = 23
    minute: int = 59
    second: int = 58

    def steps(self, form: int) -> list[Step]:
        """Writes of the time registers."""
        hour = self.hour if form & RegisterB.HOURS24 else self.hour % 12 or 12
        weekday = date(self.year, self.month, self.day).isoweekday() % 7 + 1  # Sunday is 1
        values = (self.second, self.minute, hour, weekday, self.day, self.month)
        registers = dict(zip((0, 2, 4, 6, 7, 8), values, strict=True))
        registers |= {9: self.year % 100, CENTURY: self.year // 100}
        if not form & RegisterB.DM:
            registers = {index: value // 10 << 4 | value % 10 for index, value in registers.items()}
        if not form & RegisterB.HOURS24 and self.hour >= 12:
            registers[4] |= 0x80
        return [step for index, value in registers.items() for step in put(index, value)]


def clock_set(
    moment: Moment, form: int, enabled: int = 0, rate: int = 0, alarm: Sequence[int] = (0xFF,) * 3
) -> list[Step]:
    """Sets the clock with its divider held, so that both clocks start at one time."""
    return [
        *put(REGISTER_B, RegisterB.SET | form),
        *put(REGISTER_A, HELD),
        *moment.steps(form),
        *(
            step
            for index, value in zip((1, 3, 5), alarm, strict=True)
            for step in put(index, value)
        ),
        *get(REGISTER_C),
        *put(REGISTER_B, form | enabled),
        *put(REGISTER_A, RUNNING | rate),
    ]


TIME = get(0, 2, 4, 6, 7, 8, 9, CENTURY)
FORMS = (0, int(RegisterB.HOURS24), int(RegisterB.DM), RegisterB.DM | RegisterB.HOURS24)
CALENDAR = {
    "leap year": Moment(),
    "no leap year": Moment(2023, 2, 28),
    "leap day": Moment(2024, 2, 29),
    "century": Moment(1999, 12, 31),
    "short month": Moment(2024, 4, 30),
    "noon": Moment(2024, 5, 5, 11),
    "an hour": Moment(2024, 5, 5, 0),
}
forms = st.sampled_from(FORMS)
enables = st.sampled_from([0, 0x10, 0x20, 0x30])
moments = st.builds(
    Moment,
    year=st.integers(1970, 2098),
    month=st.integers(1, 12),
    day=st.integers(1, 28),
    hour=st.integers(0, 23),
    minute=st.sampled_from([0, 29, 59]),
    second=st.integers(55, 59),
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("moment", CALENDAR)
def test_clock_turns_the_page(moment: str, form: int) -> None:
    steps = [*clock_set(CALENDAR[moment], form), *TIME]
    for _ in range(3):
        steps += [Wait(SECOND_NS), *TIME]
    compare(steps, CLOCK_SHIFT, RTC_LINE)


@pytest.mark.parametrize("enabled", [0, 0x10, 0x20, 0x30])
@pytest.mark.parametrize("second", [0x00, 0xC0])
def test_clock_interrupts_at_updates_and_alarms(enabled: int, second: int) -> None:
    alarm = (second, 0xFF, 0xFF)
    steps = clock_set(Moment(), int(RegisterB.HOURS24), enabled, alarm=alarm)
    for _ in range(8):
        steps += [Wait(SECOND_NS // 2), *get(REGISTER_C, REGISTER_C, 0)]
    compare(steps, CLOCK_SHIFT, RTC_LINE)


def test_clock_announces_its_updates() -> None:
    steps = clock_set(Moment(), int(RegisterB.HOURS24))
    steps.append(Wait(SECOND_NS // 2 - 900_000))
    steps += [step for _ in range(20) for step in (Wait(50_000), *get(REGISTER_A, 0))]
    compare(steps, CLOCK_SHIFT, RTC_LINE)


@pytest.mark.parametrize("rate", range(3, 16))
def test_clock_periodic_interrupts_come_at_the_selected_rate(rate: int) -> None:
    period_ns = (1 << rate - 1) * SECOND_NS // 32768
    steps = clock_set(Moment(), int(RegisterB.HOURS24), RegisterB.PIE, rate)
    steps += [step for _ in range(40) for step in (Wait(period_ns // 3), *get(REGISTER_C))]
    theirs, ours = run(steps, CLOCK_SHIFT), Ours()
    counts = [0, 0]
    for step, seen in zip(steps, theirs.seen, strict=True):
        mine = ours.take(step, seen.at_ns, seen.until_ns)
        counts[0] += seen.rises.get(RTC_LINE, 0)
        counts[1] += mine.rises.get(RTC_LINE, 0)
    assert abs(counts[0] - counts[1]) <= 1
    assert counts[1] >= 10


@pytest.mark.parametrize("index", [0x0E, 0x20, 0x31, 0x38, 0x7F])
def test_clock_memory_keeps_what_is_written(index: int) -> None:
    compare([*put(index, 0xA5), *get(index), *put(index, 0x5A), *get(index)], 10, RTC_LINE)


@few
@given(st.data())
def test_clock_whatever_the_guest_does(data: Any) -> None:
    form = data.draw(forms)
    alarm = (data.draw(st.sampled_from([0xC0, 0x00, 0x01])), 0xFF, 0xFF)
    move = st.one_of(
        st.sampled_from([[Wait(n * SECOND_NS // 10)] for n in (1, 3, 5, 10, 20)]),
        st.just(TIME),
        st.sampled_from([REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_C, REGISTER_D]).map(get),
        enables.map(lambda enabled: put(REGISTER_B, form | enabled)),
    )
    moves = data.draw(st.lists(move, min_size=5, max_size=25))
    start = clock_set(data.draw(moments), form, data.draw(enables), alarm=alarm)
    compare([*start, *flat(moves)], CLOCK_SHIFT, RTC_LINE)
