"""A device that does what a test asks of it, and a sink that keeps all that a bus says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack

from devserver.machine.board import DeviceWiring
from devserver.machine.bus import Bus
from devserver.models import Device, Region, Register, Signal, Space


class Probe(Device):
    """A device whose every behaviour a test can ask for through its ports.

    0 VALUE; 1 IRQ: drives both lines; 2 DELAY: asks for a deadline that many ns ahead, at which
    it emits its id; 3 ROOM: how many bytes of feed it takes; 4 FAIL: raises.
    """

    kind = "bus-probe"
    outputs = ("irq", "other")
    feeds = ("in",)
    emits = ("out",)
    regions = (
        Region(
            name="io",
            size=5,
            registers=(
                Register(offset=0, name="VALUE", storage="value"),
                Register(offset=1, name="IRQ"),
                Register(offset=2, name="DELAY"),
                Register(offset=3, name="ROOM", storage="room"),
                Register(offset=4, name="FAIL"),
            ),
        ),
        Region(
            name="window",
            size=4,
            space=Space.MEMORY,
            registers=(Register(offset=0, name="WIDE", width=4, storage="wide"),),
        ),
    )

    @dataclass
    class State:
        value: int = 0
        wide: int = 0
        room: int = 0
        dues: list[int] = field(default_factory=list)
        got: bytearray = field(default_factory=bytearray)
        ended: bool = False

    @dataclass(frozen=True)
    class Options:
        mark: int = 0
        stuck: bool = False

    state: State

    def read_irq(self, now_ns: int) -> int:
        return 0

    def write_irq(self, value: int, now_ns: int) -> None:
        self.set_line("irq", bool(value & 1))
        self.set_line("other", bool(value & 2))

    def read_delay(self, now_ns: int) -> int:
        return len(self.state.dues)

    def write_delay(self, value: int, now_ns: int) -> None:
        self.state.dues = sorted([*self.state.dues, now_ns + value])

    def read_fail(self, now_ns: int) -> int:
        raise ZeroDivisionError("on a read")

    def write_fail(self, value: int, now_ns: int) -> None:
        raise KeyError(value)

    def deadline_ns(self) -> int | None:
        return self.state.dues[0] if self.state.dues else None

    def advance(self, now_ns: int) -> None:
        while not self.options.stuck and self.state.dues and self.state.dues[0] <= now_ns:
            due_ns = self.state.dues.pop(0)
            self.emit("out", msgpack.packb([self.options.mark, due_ns, now_ns]))

    def feed(self, channel: str, data: bytes, now_ns: int) -> int:
        took = min(len(data), self.state.room)
        self.state.got += data[:took]
        self.state.room -= took
        return took

    def feed_end(self, channel: str, now_ns: int) -> None:
        self.state.ended = True


class Recorder:
    """A sink that keeps all it gets."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, bool]] = []
        self.emitted: list[tuple[int, int, bytes]] = []
        self.totals: list[tuple[int, int, int]] = []
        self.signals: list[tuple[int, Signal, int]] = []

    def line(self, line: int, level: bool) -> None:
        self.lines.append((line, level))

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        self.emitted.append((device_id, channel, data))

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        self.totals.append((device_id, channel, total))

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        self.signals.append((device_id, signal, value))

    @property
    def expiries(self) -> list[list[int]]:
        """[mark, when it was due, the time it was given] of each deadline, in order."""
        return [msgpack.unpackb(data) for _, _, data in self.emitted]


def probe(name: str, base: int | None = None, **rest: Any) -> DeviceWiring:
    bases = rest.pop("bases", {"io": base})
    return DeviceWiring(name=name, kind=Probe.kind, bases=bases, **rest)


def two_probes(sink: Recorder) -> Bus:
    """Probes 'a' at port 10h and 'b' at 15h, just behind it; all on line 5 but b's other on 6."""
    return Bus(
        [
            probe("a", 0x10, lines={"irq": 5, "other": 5}, options={"mark": 1}),
            probe("b", 0x15, lines={"irq": 5, "other": 6}, options={"mark": 2}),
        ],
        sink,
    )
