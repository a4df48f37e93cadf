"""A 16550 on a bench: its ports, its interrupt line, the far end of its serial line, its time."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from devserver.machine.board import DeviceWiring
from devserver.machine.bus import Bus
from devserver.models import Signal, Space
from devserver.models.uart16550.registers import Lcr, Lsr, Mcr

LINE = 4
BIT_NS = 8680  # at divisor 1, rounded down
CHARACTER_NS = 86805  # 8N1 at divisor 1: ten bits of 8680.55 ns

EIGHT_BITS = Lcr.WLS
TRIGGER = {1: 0x00, 4: 0x40, 8: 0x80, 14: 0xC0}


class Port(IntEnum):
    """Offsets; those of one name share a port."""

    RBR = THR = DLL = 0
    IER = DLM = 1
    IIR = FCR = 2
    LCR = 3
    MCR = 4
    LSR = 5
    MSR = 6
    SCR = 7


class Bench:
    """A UART at port 0 on interrupt line 4, with the far end of its line and its VM time."""

    def __init__(self, **options: object) -> None:
        self.now_ns = 0
        self.irq = False
        self.events: list[bool | bytes] = []  # levels of the interrupt line, and bytes sent
        wiring = DeviceWiring(
            name="com1",
            kind="uart16550",
            bases={"io": 0},
            lines={"irq": LINE},
            options=options,
        )
        self.bus = Bus([wiring], self)

    @property
    def sent(self) -> bytes:
        """All that the far end got."""
        return b"".join(event for event in self.events if isinstance(event, bytes))

    @property
    def edges(self) -> int:
        """How often the interrupt line has risen."""
        return self.events.count(True)

    def inb(self, port: int) -> int:
        return self.bus.read(Space.PORT, port, 1, self.now_ns)

    def outb(self, port: int, value: int) -> None:
        self.bus.write(Space.PORT, port, 1, value, self.now_ns)

    def inputs(self) -> bytes:
        """Reads RBR for as long as there are data."""
        return bytes(self.drain())

    def drain(self) -> Iterator[int]:
        while self.inb(Port.LSR) & Lsr.DR:
            yield self.inb(Port.RBR)

    def type(self, data: bytes) -> None:
        self.bus.feed(1, 0, data, self.now_ns)

    def hang_up(self) -> None:
        self.bus.feed(1, 0, b"", self.now_ns, end=True)

    def wait(self, span_ns: int) -> None:
        self.now_ns += span_ns
        self.bus.advance(self.now_ns)

    def setup(self, *, ier: int = 0, fcr: int = 0, mcr: int = Mcr.OUT2, lcr: int = 3) -> None:
        """Sets the registers up, at 115,200 baud."""
        self.outb(Port.LCR, lcr | Lcr.DLAB)
        self.outb(Port.DLL, 1)
        self.outb(Port.DLM, 0)
        self.outb(Port.LCR, lcr)
        self.outb(Port.FCR, fcr)
        self.outb(Port.MCR, mcr)
        self.outb(Port.IER, ier)

    # what the bus drives

    def line(self, line: int, level: bool) -> None:
        assert line == LINE
        self.irq = level
        self.events.append(level)

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        self.events.append(data)

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        pass

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        raise AssertionError("a UART asks nothing of the machine")
