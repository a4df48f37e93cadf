"""One 8259A interrupt controller, seen from its pins.

Source: Intel 8259A data sheet, order number 231468. A level's way through the chip::

    IR pin ──> edge latch or level ──> IRR ──(IMR)──> priority resolver ──> INT
                                                        ^        |
                                       not above these  └─ ISR <─┘ on INTA or a poll

Levels are 0 to 7. Their priorities form a ring: the level behind the lowest one is the highest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devserver.models.i8259.registers import (
    ALL,
    CASCADE,
    LEVEL_MASK,
    LEVELS,
    OCW2_COMMAND,
    VECTOR_MASK,
    Awaited,
    Icw1,
    Icw4,
    Ocw2,
    Ocw3,
    PollWord,
)

_BYTES = ("lines", "edges", "elcr", "imr", "isr", "icw1", "icw2", "icw3", "icw4")


@dataclass
class Chip:
    """What both chips of a pair do; sets of levels are bytes, bit n for level n.

    ``edges`` are levels whose line has risen and was not acknowledged since, ``poll`` is the poll
    word that the next read gives. The words that ICW1 to ICW4 left are kept whole.
    """

    lines: int = 0
    edges: int = 0
    elcr: int = 0
    imr: int = 0
    isr: int = 0
    icw1: int = 0
    icw2: int = 0
    icw3: int = 0
    icw4: int = 0
    awaited: Awaited = Awaited.OCW1
    lowest: int = LEVELS - 1
    rotates_in_aeoi: bool = False
    special_mask: bool = False
    reads_isr: bool = False
    poll: int | None = None

    # -- pins -----------------------------------------------------------------------------------

    def drive(self, level: int, high: bool) -> None:
        """The IR input ``level`` is at this level from now on; an edge's request outlives it."""
        bit = 1 << level
        if not high:
            self.lines &= ~bit
        elif not self.lines & bit:
            self.lines |= bit
            self.edges |= bit & ~self.level_triggered

    def choose_triggers(self, elcr: int) -> None:
        """The levels in ``elcr`` are level-triggered from now on, the others by edges."""
        self.elcr = elcr
        self.edges &= ~elcr

    @property
    def level_triggered(self) -> int:
        """The inputs that request for as long as they are high."""
        return ALL if self.icw1 & Icw1.LTIM else self.elcr

    @property
    def irr(self) -> int:
        """The levels that request, masked ones included."""
        return self.edges | self.lines & self.level_triggered

    @property
    def slave_inputs(self) -> int:
        """The levels on which other chips answer for this one; none, unless it is a master."""
        return 0

    def request(self) -> int | None:
        """The level for which the INT output is high; None while it is low."""
        wanted = self.irr & ~self.imr
        if not wanted or self.awaited is not Awaited.OCW1:
            return None
        serving = self._serving()
        nested_again = self.slave_inputs if self.icw4 & Icw4.SFNM else 0
        for level in self._by_priority():
            bit = 1 << level
            if serving & bit:
                return level if wanted & nested_again & bit else None
            if wanted & bit:
                return level
        return None

    # -- interrupt sequence ---------------------------------------------------------------------

    def begin_acknowledge(self) -> int | None:
        """INTA falls: the level that requests goes into service. None: there is none."""
        level = self.request()
        self.poll = None
        if level is not None:
            self.serve(level)
        return level

    def begin_poll(self) -> int | None:
        """A read takes the poll word, which acts as INTA for the level that was frozen in it."""
        word, self.poll = self.poll, None
        if word is None or not word & PollWord.I:
            return None
        level = word & LEVEL_MASK
        self.serve(level)
        return level

    def serve(self, level: int) -> None:
        """Puts a level into service; its edge is used up."""
        self.isr |= 1 << level
        self.edges &= ~(1 << level)

    def end_acknowledge(self, level: int | None) -> None:
        """The last INTA rises: with AEOI the level's service is over already."""
        if level is not None and self.icw4 & Icw4.AEOI:
            self.isr &= ~(1 << level)
            if self.rotates_in_aeoi:
                self.lowest = level

    def vector(self, level: int | None) -> int:
        """The vector of a level in 8086 mode; where no level requests, that of IR7."""
        return self.icw2 & VECTOR_MASK | (LEVEL_MASK if level is None else level)

    # -- registers ------------------------------------------------------------------------------

    def status(self) -> int:
        """What a read with A0 low gives, unless a poll was asked for."""
        return self.isr if self.reads_isr else self.irr

    def write_command(self, value: int) -> None:
        """A write with A0 low: ICW1, OCW2 or OCW3."""
        if value & Icw1.D4:
            self._initialize(value)
        elif value & Ocw3.D3:
            self._operate(value)
        else:
            self._end_or_rotate(Ocw2(value & OCW2_COMMAND), value & LEVEL_MASK)

    def write_data(self, value: int) -> None:
        """A write with A0 high: OCW1, or the word that an initialization waits for."""
        if self.awaited is Awaited.OCW1:
            self.imr = value
            return
        setattr(self, self.awaited.name.lower(), value)
        self.awaited = self._word_after(self.awaited)

    def _initialize(self, icw1: int) -> None:
        """Data sheet, "Initialization command words 1 and 2", a to f.

        It does not speak of the ISR and of rotation in AEOI mode; they start afresh as well.
        """
        self.icw1 = icw1
        self.edges = self.imr = self.isr = 0
        self.lowest = LEVELS - 1
        self.special_mask = self.reads_isr = self.rotates_in_aeoi = False
        self.poll = None
        if not icw1 & Icw1.IC4:
            self.icw4 = 0
        self.awaited = Awaited.ICW2

    def _word_after(self, word: Awaited) -> Awaited:
        if word is Awaited.ICW2 and not self.icw1 & Icw1.SNGL:
            return Awaited.ICW3
        if word is not Awaited.ICW4 and self.icw1 & Icw1.IC4:
            return Awaited.ICW4
        return Awaited.OCW1

    def _operate(self, ocw3: int) -> None:
        if ocw3 & Ocw3.ESMM:
            self.special_mask = bool(ocw3 & Ocw3.SMM)
        if ocw3 & Ocw3.RR:
            self.reads_isr = bool(ocw3 & Ocw3.RIS)
        if ocw3 & Ocw3.P:
            level = self.request()
            self.poll = 0 if level is None else int(PollWord.I | level)

    def _end_or_rotate(self, command: Ocw2, level: int) -> None:
        match command:
            case Ocw2.NON_SPECIFIC_EOI:
                self._end_highest()
            case Ocw2.SPECIFIC_EOI:
                self.isr &= ~(1 << level)
            case Ocw2.ROTATE_ON_NON_SPECIFIC_EOI:
                ended = self._end_highest()
                self.lowest = self.lowest if ended is None else ended
            case Ocw2.ROTATE_ON_SPECIFIC_EOI:
                self.isr &= ~(1 << level)
                self.lowest = level
            case Ocw2.SET_PRIORITY:
                self.lowest = level
            case Ocw2.ROTATE_IN_AEOI_SET | Ocw2.ROTATE_IN_AEOI_CLEAR:
                self.rotates_in_aeoi = command is Ocw2.ROTATE_IN_AEOI_SET

    # -- priorities -----------------------------------------------------------------------------

    def _by_priority(self) -> Iterator[int]:
        """The levels from the highest priority on."""
        return ((self.lowest + step) % LEVELS for step in range(1, LEVELS + 1))

    def _serving(self) -> int:
        """The levels whose service counts: not masked ones in special mask mode.

        They neither shut out lower levels then, nor does a non-specific EOI end them.
        """
        return self.isr & ~self.imr if self.special_mask else self.isr

    def _end_highest(self) -> int | None:
        serving = self._serving()
        for level in self._by_priority():
            if serving & 1 << level:
                self.isr &= ~(1 << level)
                return level
        return None

    # -- snapshots ------------------------------------------------------------------------------

    def damage(self) -> str:
        """What no chip can hold, in words; empty if nothing."""
        for name in _BYTES:
            if not 0 <= getattr(self, name) <= ALL:
                return f"{name} is {getattr(self, name)}, which is no byte"
        if not 0 <= self.lowest < LEVELS:
            return f"lowest is {self.lowest}, which is no level"
        if self.poll is not None and self.poll & ~LEVEL_MASK != PollWord.I and self.poll != 0:
            return f"poll is {self.poll}, which is no poll word"
        if self.edges & self.level_triggered:
            return f"edges is {self.edges:#x}, with lines that are level-triggered"
        if self.awaited not in self._words():
            return f"awaited is {self.awaited.name}, which ICW1 {self.icw1:#x} leaves out"
        return ""

    def _words(self) -> set[Awaited]:
        """The words that may be awaited after the ICW1 that there was."""
        words = {Awaited.OCW1, Awaited.ICW2}
        while (word := self._word_after(max(words))) is not Awaited.OCW1:
            words.add(word)
        return words


@dataclass
class Master(Chip):
    """The chip that asks the processor; ICW3 is the set of its inputs with slaves.

    Before any initialization it knows its slave.
    """

    icw3: int = 1 << CASCADE

    def hear_slave(self, asks: bool) -> None:
        """The slave's INT is at this level; unlike a device, a slave takes its request back."""
        self.drive(CASCADE, asks)
        if not asks:
            self.edges &= ~(1 << CASCADE)

    @property
    def slave_inputs(self) -> int:
        return 0 if self.icw1 & Icw1.SNGL else self.icw3


@dataclass
class Slave(Chip):
    """A chip that asks a master; ICW3 is the number of the master's input that it is on."""

    icw3: int = CASCADE

    def answers_at(self, level: int) -> bool:
        """Whether the chip takes the cascade lines to mean it; one alone doesn't look at them."""
        return bool(self.icw1 & Icw1.SNGL) or self.icw3 & LEVEL_MASK == level

    def _initialize(self, icw1: int) -> None:
        super()._initialize(icw1)
        self.icw3 = LEVELS - 1
