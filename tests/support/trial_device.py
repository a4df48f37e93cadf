"""A device that does what a test of a session or a server asks of it through its ports."""

from __future__ import annotations

from dataclasses import dataclass, field

from devserver.models import Device, Policy, Region, Register

KIND = "session-trial"
#: Offsets of the registers.
VALUE, IRQ, DELAY, ROOM, FAIL, BIG, COUNT, TIME = 0, 1, 2, 3, 4, 5, 8, 16
SIZE = 24


class Trial(Device):
    """VALUE may be posted; IRQ drives the lines by its bits 0 and 1; DELAY raises 'irq' so many
    milliseconds later; ROOM is how many bytes of feed are taken; FAIL raises; BIG sends so many
    thousand bytes; COUNT counts its own reads; TIME is the VM time of the read."""

    kind = KIND
    version = 3
    outputs = ("irq", "other")
    feeds = ("in", "spare")
    emits = ("out",)
    regions = (
        Region(
            name="io",
            size=SIZE,
            registers=(
                Register(offset=VALUE, name="VALUE", policy=Policy.POSTED),
                Register(offset=IRQ, name="IRQ"),
                Register(offset=DELAY, name="DELAY"),
                Register(offset=ROOM, name="ROOM", storage="room"),
                Register(offset=FAIL, name="FAIL"),
                Register(offset=BIG, name="BIG"),
                Register(offset=COUNT, name="COUNT", width=8),
                Register(offset=TIME, name="TIME", width=8),
            ),
        ),
    )

    @dataclass
    class State:
        value: int = 0
        room: int = 0
        count: int = 0
        due_ns: int | None = None
        written: list[int] = field(default_factory=list)

    @dataclass(frozen=True)
    class Options:
        raised: bool = False
        broken: bool = False

    state: State

    def started(self) -> None:
        if self.options.broken:
            raise RuntimeError("broken from the start" + " and for ever" * 10_000)
        if self.options.raised:
            self.set_line("irq", True)

    def read_value(self, now_ns: int) -> int:
        return self.state.value

    def write_value(self, value: int, now_ns: int) -> None:
        self.state.value = value
        self.emit("out", bytes((value,)))

    def read_irq(self, now_ns: int) -> int:
        return 0

    def write_irq(self, value: int, now_ns: int) -> None:
        self.set_line("irq", bool(value & 1))
        self.set_line("other", bool(value & 2))

    def read_delay(self, now_ns: int) -> int:
        return 0

    def write_delay(self, value: int, now_ns: int) -> None:
        self.state.due_ns = now_ns + 1_000_000 * value

    def deadline_ns(self) -> int | None:
        return self.state.due_ns

    def advance(self, now_ns: int) -> None:
        self.state.due_ns = None
        self.set_line("irq", True)

    def read_fail(self, now_ns: int) -> int:
        raise ZeroDivisionError("on a read")

    def write_fail(self, value: int, now_ns: int) -> None:
        raise KeyError("on a write")

    def read_big(self, now_ns: int) -> int:
        return 0

    def write_big(self, value: int, now_ns: int) -> None:
        self.emit("out", bytes(1000 * value))

    def read_count(self, now_ns: int) -> int:
        self.state.count += 1
        return self.state.count

    def write_count(self, value: int, now_ns: int) -> None:
        self.state.count = value

    def read_time(self, now_ns: int) -> int:
        return now_ns

    def write_time(self, value: int, now_ns: int) -> None:
        pass

    def feed(self, channel: str, data: bytes, now_ns: int) -> int:
        took = min(len(data), self.state.room)
        self.state.room -= took
        return took

    def feed_end(self, channel: str, now_ns: int) -> None:
        self.emit("out", f"end of {channel}".encode())
