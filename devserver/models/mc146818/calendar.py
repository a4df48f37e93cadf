"""The MC146818's calendar: stepping a date, the registers that show it, matching the alarm.

Nothing here knows of ports or of VM time; :mod:`devserver.models.mc146818.device` does. Years are
whole (1970, not 70), weekdays run from 1 for Sunday to 7 for Saturday, as the chip counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import IntEnum


class Cmos(IntEnum):
    """What the 128 bytes behind the index hold (MC146818 address map; PC/AT CMOS map)."""

    SECONDS = 0x00
    SECONDS_ALARM = 0x01
    MINUTES = 0x02
    MINUTES_ALARM = 0x03
    HOURS = 0x04
    HOURS_ALARM = 0x05
    DAY_OF_WEEK = 0x06
    DATE_OF_MONTH = 0x07
    MONTH = 0x08
    YEAR = 0x09
    REGISTER_A = 0x0A
    REGISTER_B = 0x0B
    REGISTER_C = 0x0C
    REGISTER_D = 0x0D
    BASE_MEMORY = 0x15  # KiB below 1 MiB, 16 bits
    EXTENDED_MEMORY = 0x17  # KiB above 1 MiB as set up, 16 bits
    EXTENDED_MEMORY_FOUND = 0x30  # the same as the self-test found it
    CENTURY = 0x32
    MEMORY_ABOVE_16M = 0x34  # units of 64 KiB, 16 bits


MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
#: The Gregorian calendar repeats after this many years and days (a whole number of weeks).
_CYCLE_YEARS = 400
_CYCLE_DAYS = 146_097

_TWO_OCLOCK = 2 * HOUR
_APRIL, _OCTOBER, _SUNDAY = 4, 10, 1


def is_leap(year: int) -> bool:
    """The Gregorian rule. The MC146818 itself, with no century, takes every fourth year."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def days_in_month(year: int, month: int) -> int:
    """How many days ``month`` (1 to 12) has."""
    return _DAYS_IN_MONTH[month - 1] + (month == 2 and is_leap(year))


@dataclass(frozen=True)
class Calendar:
    """A date and a time of day. The weekday is counted on its own, as the chip does."""

    year: int
    month: int
    day: int
    weekday: int
    second_of_day: int

    @property
    def hour(self) -> int:
        return self.second_of_day // HOUR

    @property
    def minute(self) -> int:
        return self.second_of_day // MINUTE % 60

    @property
    def second(self) -> int:
        return self.second_of_day % 60

    def after(self, seconds: int) -> Calendar:
        """This moment and ``seconds`` later (earlier if negative)."""
        days, second_of_day = divmod(self.second_of_day + seconds, DAY)
        if days == 0:
            return replace(self, second_of_day=second_of_day)
        cycles, days = divmod(days, _CYCLE_DAYS)
        year, month = self.year + cycles * _CYCLE_YEARS, self.month
        day = self.day + days
        while day > (length := days_in_month(year, month)):
            day -= length
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        return Calendar(year, month, day, (self.weekday - 1 + days) % 7 + 1, second_of_day)


#: 1970 began on a Thursday.
UNIX_EPOCH = Calendar(year=1970, month=1, day=1, weekday=5, second_of_day=0)


@dataclass(frozen=True)
class Format:
    """How the time registers hold numbers: register B's DM and 24/12 bits."""

    binary: bool
    hours24: bool

    def encode(self, number: int) -> int:
        """The byte that stands for ``number`` (0 to 99)."""
        return number if self.binary else number // 10 << 4 | number % 10

    def decode(self, byte: int) -> int:
        """The number that a byte stands for; a byte that is no BCD gets its digits' weight."""
        return byte if self.binary else (byte >> 4) * 10 + (byte & 0x0F)

    def encode_hour(self, hour: int) -> int:
        """The byte for an hour of the day; with 12 hours, bit 7 says that it is PM."""
        if self.hours24:
            return self.encode(hour)
        return self.encode(hour % 12 or 12) | (0x80 if hour >= 12 else 0)

    def decode_hour(self, byte: int) -> int:
        """The hour of the day that a byte stands for; above 23 if the byte is no hour."""
        if self.hours24:
            return self.decode(byte)
        hour = self.decode(byte & 0x7F)
        if not 1 <= hour <= 12:
            return 24
        return hour % 12 + (12 if byte & 0x80 else 0)


@dataclass(frozen=True)
class Alarm:
    """A time of day; a field that is None matches whatever the clock shows."""

    hour: int | None
    minute: int | None
    second: int | None

    @classmethod
    def decode(cls, hour: int, minute: int, second: int, form: Format) -> Alarm | None:
        """The alarm in three registers, or None if the clock can never show what they hold."""
        fields: list[int | None] = []
        for byte, limit in ((hour, 24), (minute, 60), (second, 60)):
            if byte >= 0xC0:  # the "don't care" codes, C0h to FFh
                fields.append(None)
                continue
            is_hour = limit == 24
            number = form.decode_hour(byte) if is_hour else form.decode(byte)
            if number >= limit:
                return None
            if byte != (form.encode_hour(number) if is_hour else form.encode(number)):
                return None
            fields.append(number)
        return cls(*fields)

    def matches(self, second_of_day: int) -> bool:
        """Whether the clock, showing this time of day, sets off the alarm."""
        return self.seconds_until(second_of_day - 1) == 1

    def seconds_until(self, second_of_day: int) -> int:
        """How long after this time of day the next match is: 1 to 86400 seconds."""
        at = second_of_day + 1
        while True:
            hour, minute, second = at // HOUR % 24, at // MINUTE % 60, at % 60
            if self.hour is not None and hour != self.hour:
                at = (at // HOUR + (self.hour - hour) % 24) * HOUR
            elif self.minute is not None and minute != self.minute:
                at = (at // MINUTE + (self.minute - minute) % 60) * MINUTE
            elif self.second is not None and second != self.second:
                at += (self.second - second) % 60
            else:
                return at - second_of_day


def seconds_until_two(second_of_day: int) -> int:
    """How long until it is next two in the morning: 1 to 86400 seconds."""
    return (_TWO_OCLOCK - second_of_day - 1) % DAY + 1


def daylight_saving(moment: Calendar, fell_back: bool) -> tuple[Calendar, bool]:
    """What the chip's daylight saving makes of two in the morning.

    On the last Sunday in April the clock goes on at three; on the last Sunday in October it goes
    back to one, once: ``fell_back`` says that it has, and is part of the answer. At any other
    moment nothing changes. Source: MC146818 data sheet, register B, DSE.
    """
    if moment.second_of_day != _TWO_OCLOCK:
        return moment, fell_back
    last_sunday = moment.weekday == _SUNDAY and (
        moment.day + 7 > days_in_month(moment.year, moment.month)
    )
    if last_sunday and moment.month == _APRIL:
        return moment.after(HOUR), False
    if last_sunday and moment.month == _OCTOBER and not fell_back:
        return moment.after(-HOUR), True
    return moment, False


#: What each time register shows.
_FIELDS: dict[Cmos, Callable[[Calendar], int]] = {
    Cmos.SECONDS: lambda moment: moment.second,
    Cmos.MINUTES: lambda moment: moment.minute,
    Cmos.HOURS: lambda moment: moment.hour,
    Cmos.DAY_OF_WEEK: lambda moment: moment.weekday,
    Cmos.DATE_OF_MONTH: lambda moment: moment.day,
    Cmos.MONTH: lambda moment: moment.month,
    Cmos.YEAR: lambda moment: moment.year % 100,
    Cmos.CENTURY: lambda moment: moment.year // 100 % 100,
}


def _carried(before: Calendar, after: Calendar, seconds: int) -> list[Cmos]:
    """The registers that a carry reaches when the clock counts on by ``seconds`` (at least 1)."""
    start = before.second_of_day
    end = start + seconds
    reached = {
        Cmos.SECONDS: True,
        Cmos.MINUTES: start // MINUTE != end // MINUTE,
        Cmos.HOURS: start // HOUR != end // HOUR,
        Cmos.DAY_OF_WEEK: end >= DAY,
        Cmos.DATE_OF_MONTH: end >= DAY,
        Cmos.MONTH: (before.year, before.month) != (after.year, after.month),
        Cmos.YEAR: before.year != after.year,
        Cmos.CENTURY: before.year // 100 != after.year // 100,
    }
    return [place for place, is_reached in reached.items() if is_reached]


class ClockFace:
    """The time, calendar and alarm registers, as a view of the chip's memory."""

    def __init__(self, memory: bytearray, form: Format) -> None:
        self._memory = memory
        self._form = form

    def moment(self) -> Calendar:
        """What the time registers show, each field taken to its nearest legal value."""
        memory, decode = self._memory, self._form.decode
        hour = min(self._form.decode_hour(memory[Cmos.HOURS]), 23)
        minute = min(decode(memory[Cmos.MINUTES]), 59)
        second = min(decode(memory[Cmos.SECONDS]), 59)
        year = min(decode(memory[Cmos.CENTURY]), 99) * 100 + min(decode(memory[Cmos.YEAR]), 99)
        month = min(max(decode(memory[Cmos.MONTH]), 1), 12)
        day = min(max(decode(memory[Cmos.DATE_OF_MONTH]), 1), days_in_month(year, month))
        weekday = min(max(decode(memory[Cmos.DAY_OF_WEEK]), 1), 7)
        return Calendar(year, month, day, weekday, hour * HOUR + minute * MINUTE + second)

    def show(self, moment: Calendar, places: Collection[Cmos] | None = None) -> None:
        """Puts a moment into the time registers, or into those of them that are named."""
        for place in _FIELDS if places is None else places:
            number = _FIELDS[place](moment)
            is_hour = place == Cmos.HOURS
            encoded = self._form.encode_hour(number) if is_hour else self._form.encode(number)
            self._memory[place] = encoded

    def run(self, updates: int) -> bool:
        """Runs that many update cycles (at least 1); returns whether one set off the alarm."""
        before = self.moment()
        alarm = self._alarm()
        after = before.after(updates)
        self.show(after, _carried(before, after, updates))
        return alarm is not None and alarm.seconds_until(before.second_of_day) <= updates

    def run_daylight_saving(self, updates: int, fell_back: bool) -> tuple[bool, bool]:
        """Like :meth:`run` with DSE set; returns that and the new ``fell_back``."""
        matched = False
        while updates:
            step = min(updates, seconds_until_two(self.moment().second_of_day))
            if step > 1:  # up to the second before two o'clock, and then that one alone
                step = min(updates, step - 1)
                matched |= self.run(step)
            else:
                at_two = self.run(1)
                shown, fell_back = daylight_saving(self.moment(), fell_back)
                if shown == self.moment():
                    matched |= at_two
                else:
                    self.show(shown, (Cmos.HOURS,))
                    alarm = self._alarm()
                    matched |= alarm is not None and alarm.matches(shown.second_of_day)
            updates -= step
        return matched, fell_back

    def updates_until_alarm(self, daylight_saving: bool) -> int | None:
        """How many updates until the alarm, or until daylight saving may move it; None: never."""
        alarm = self._alarm()
        if alarm is None:
            return None
        now = self.moment().second_of_day
        wait = alarm.seconds_until(now)
        return min(wait, seconds_until_two(now)) if daylight_saving else wait

    def _alarm(self) -> Alarm | None:
        memory = self._memory
        return Alarm.decode(
            memory[Cmos.HOURS_ALARM],
            memory[Cmos.MINUTES_ALARM],
            memory[Cmos.SECONDS_ALARM],
            self._form,
        )
