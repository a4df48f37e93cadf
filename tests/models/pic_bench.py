"""A pair of 8259A on a bench: its ports by name, its lines, its INT; and a naive one to compare."""

from __future__ import annotations

from dataclasses import dataclass, field

from devserver.models.device import Context, NullBus
from devserver.models.i8259.device import I8259
from devserver.models.i8259.registers import FIRST_LINE_OFFSET, Icw1, Icw4, Ocw2, Ocw3

MASTER_VECTOR, SLAVE_VECTOR = 0x30, 0x78
READ_IRR, READ_ISR = Ocw3.D3 | Ocw3.RR, Ocw3.D3 | Ocw3.RR | Ocw3.RIS
POLL = Ocw3.D3 | Ocw3.P
SPECIAL_MASK = Ocw3.D3 | Ocw3.ESMM | Ocw3.SMM
NO_SPECIAL_MASK = Ocw3.D3 | Ocw3.ESMM
EOI = Ocw2.NON_SPECIFIC_EOI


class Port:
    """One chip as the guest has it: writes with A0 low and high, and what reads give."""

    def __init__(self, pair: I8259, region: str) -> None:
        self._pair, self._region = pair, region

    def command(self, value: int) -> None:
        self._pair.write(self._region, 0, 1, int(value), 0)

    def data(self, value: int) -> None:
        self._pair.write(self._region, 1, 1, int(value), 0)

    def initialize(self, *words: int) -> None:
        """ICW1, and the other words that it asks for."""
        self.command(words[0])
        for word in words[1:]:
            self.data(word)

    def eoi(self) -> None:
        self.command(EOI)

    def poll(self) -> int:
        self.command(POLL)
        return self._pair.read(self._region, 0, 1, 0)

    @property
    def irr(self) -> int:
        self.command(READ_IRR)
        return self._pair.read(self._region, 0, 1, 0)

    @property
    def isr(self) -> int:
        self.command(READ_ISR)
        return self._pair.read(self._region, 0, 1, 0)

    @property
    def status(self) -> int:
        return self._pair.read(self._region, 0, 1, 0)

    @property
    def imr(self) -> int:
        return self._pair.read(self._region, 1, 1, 0)


class Bench(NullBus):
    """A pair that was initialised as a PC's firmware does it, or left as at power-on."""

    def __init__(self, *, master: int = 0, slave: int = 0, icw1: int = 0, fresh: bool = False):
        """``master`` and ``slave`` are bits of ICW4, ``icw1`` of both chips' ICW1."""
        self.intr = False
        self.pair = I8259(Context(self))
        self.master, self.slave = Port(self.pair, "master"), Port(self.pair, "slave")
        if not fresh:
            first = Icw1.D4 | Icw1.IC4 | icw1
            self.master.initialize(first, MASTER_VECTOR, 0x04, Icw4.UPM | master)
            self.slave.initialize(first, SLAVE_VECTOR, 2, Icw4.UPM | slave)

    def set_line(self, output: str, level: bool) -> None:
        assert output == "intr"
        self.intr = level

    def elcr(self, lines: int) -> None:
        """Makes the lines of a 16-bit set level-triggered."""
        self.pair.write("elcr", 0, 2, lines, 0)

    def up(self, *lines: int) -> None:
        for line in lines:
            self.pair.line(line, True)

    def down(self, *lines: int) -> None:
        for line in lines:
            self.pair.line(line, False)

    def pulse(self, line: int) -> None:
        self.down(line)
        self.up(line)

    def inta(self) -> int:
        """The acknowledge cycle; gives the interrupt's number, whichever chip's vector it is."""
        vector = self.pair.read("bus", 0, 1, 0)
        base, first = (SLAVE_VECTOR, 8) if vector >= SLAVE_VECTOR else (MASTER_VECTOR, 0)
        assert base <= vector < base + 8
        return vector - base + first

    def drive_by_bus(self, line: int, value: int) -> None:
        self.pair.write("bus", FIRST_LINE_OFFSET + line, 1, value, 0)

    def twin(self) -> Bench:
        """Another pair, restored from this one's snapshot."""
        twin = Bench(fresh=True)
        twin.pair.load(self.pair.save())
        twin.intr = self.intr
        return twin


@dataclass
class NaivePic:
    """One 8259A as lists of levels: ``order`` has them from the highest priority to the lowest."""

    order: list[int] = field(default_factory=lambda: list(range(8)))
    high: set[int] = field(default_factory=set)
    risen: set[int] = field(default_factory=set)
    by_level: set[int] = field(default_factory=set)
    masked: set[int] = field(default_factory=set)
    serving: list[int] = field(default_factory=list)
    special_mask: bool = False
    aeoi: bool = False
    rotating: bool = False

    def line(self, level: int, high: bool) -> None:
        if not high:
            self.high.discard(level)
        elif level not in self.high:
            self.high.add(level)
            if level not in self.by_level:
                self.risen.add(level)

    def requesting(self) -> list[int]:
        return [n for n in self.order if n in self.risen or n in self.high & self.by_level]

    def blocking(self) -> list[int]:
        """Levels in service that shut out what is not above them, the highest first."""
        ignored = self.masked if self.special_mask else set()
        return [n for n in self.order if n in self.serving and n not in ignored]

    def request(self) -> int | None:
        open_to = self.order
        if blocking := self.blocking():
            open_to = self.order[: self.order.index(blocking[0])]
        return next((n for n in open_to if n in self.requesting() and n not in self.masked), None)

    def inta(self) -> int | None:
        level = self.request()
        if level is not None:
            self.risen.discard(level)
            if not self.aeoi:
                self.serving.append(level)
            elif self.rotating:
                self.put_last(level)
        return level

    def eoi(self, level: int | None, rotate: bool) -> None:
        """Ends ``level``, or the highest; with ``rotate`` it comes last from now on."""
        if level is None:
            level = next(iter(self.blocking()), None)
        if level in self.serving:
            self.serving.remove(level)
        if rotate and level is not None:
            self.put_last(level)

    def put_last(self, level: int) -> None:
        at = self.order.index(level) + 1
        self.order = self.order[at:] + self.order[:at]
