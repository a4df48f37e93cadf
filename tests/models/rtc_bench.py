"""A real-time clock on a bench: reached as a guest does, with its pin and its VM time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from devserver.models.device import Context
from devserver.models.mc146818.calendar import Cmos
from devserver.models.mc146818.device import Mc146818, RegisterA, RegisterB

SECOND_NS = 1_000_000_000
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RUNNING = RegisterA.DV1
DIVIDER_RESET = RegisterA.DV2 | RegisterA.DV1
H24 = RegisterB.HOURS24
TIME_PLACES = (
    Cmos.SECONDS,
    Cmos.MINUTES,
    Cmos.HOURS,
    Cmos.DAY_OF_WEEK,
    Cmos.DATE_OF_MONTH,
    Cmos.MONTH,
    Cmos.YEAR,
    Cmos.CENTURY,
)

moments = st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))
formats = st.sampled_from([flags for flags in range(8) if not flags & RegisterB.DSE])


def epoch_ns(moment: datetime) -> int:
    return (moment - UNIX_EPOCH) // timedelta(microseconds=1) * 1000


class Chip:
    """A clock with a wire on its interrupt pin, reached as a guest does, and its VM time."""

    def __init__(self, epoch: int = 0, **options: object) -> None:
        self.now_ns = 0
        self.level = False
        self.rises_ns: list[int] = []
        self.wakeups = 0
        self.epoch = epoch
        self.device = Mc146818(Context(bus=self, epoch_ns=epoch, options=options))

    def set_line(self, output: str, level: bool) -> None:
        assert output == "irq"
        if level and not self.level:
            self.rises_ns.append(self.now_ns)
        self.level = level

    def emit(self, channel: str, data: bytes) -> None:
        raise AssertionError("a clock emits nothing")

    def signal(self, signal: int, value: int) -> None:
        raise AssertionError("a clock asks nothing of the machine")

    def get(self, place: int) -> int:
        self.device.write("io", 0, 1, place, self.now_ns)
        return self.device.read("io", 1, 1, self.now_ns)

    def put(self, place: int, value: int) -> None:
        self.device.write("io", 0, 1, place, self.now_ns)
        self.device.write("io", 1, 1, value, self.now_ns)

    def run_to(self, now_ns: int, *, acknowledge: bool = False) -> None:
        """Lets VM time pass, calling the device at its deadlines."""
        while (due_ns := self.device.deadline_ns()) is not None and due_ns <= now_ns:
            assert due_ns >= self.now_ns
            self.now_ns = due_ns
            self.wakeups += 1
            self.device.advance(due_ns)
            later_ns = self.device.deadline_ns()
            assert later_ns is None or later_ns > due_ns
            if acknowledge and self.level:
                self.get(Cmos.REGISTER_C)
        self.now_ns = now_ns

    def run(self, seconds: float, *, acknowledge: bool = False) -> None:
        self.run_to(self.now_ns + int(seconds * SECOND_NS), acknowledge=acknowledge)

    def twin(self) -> Chip:
        other = Chip(self.epoch)
        other.device.load(self.device.save())
        other.now_ns, other.level = self.now_ns, self.level
        return other

    def show(self, moment: datetime, flags: int) -> None:
        """Sets the clock as the data sheet wants it: stopped by SET, in the format given."""
        self.put(Cmos.REGISTER_B, flags | RegisterB.SET)
        for place, byte in zip(TIME_PLACES, registers(moment, flags), strict=True):
            self.put(place, byte)
        self.put(Cmos.REGISTER_B, flags)

    def time(self) -> list[int]:
        return [self.get(place) for place in TIME_PLACES]


def registers(moment: datetime, flags: int) -> list[int]:
    """The time registers that show a moment, by way of Python's own formatting."""
    hour = f"{moment:%H}" if flags & RegisterB.HOURS24 else f"{moment:%I}"
    weekday = (moment.weekday() + 1) % 7 + 1  # Sunday is 1
    shown = [f"{moment:%S}", f"{moment:%M}", hour, str(weekday), f"{moment:%d}", f"{moment:%m}"]
    shown += [f"{moment.year % 100}", f"{moment.year // 100}"]
    result = [int(digits, 10 if flags & RegisterB.DM else 16) for digits in shown]
    if not flags & RegisterB.HOURS24 and moment.hour >= 12:
        result[2] |= 0x80
    return result
