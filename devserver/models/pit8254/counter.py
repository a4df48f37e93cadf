"""One counter of the 8254, computed in closed form: its registers, flip-flops and pins.

A counter stands after CLK pulse number ``clock`` and is brought forward with
:meth:`PitCounter.run_to` at a cost that does not depend on how many pulses lie between. One pulse
is taken as one instant: its rising edge, which samples GATE, and its falling edge, which loads or
decrements the count. What the pulses do is up to the mode (see
:mod:`devserver.models.pit8254.modes`).

Source: Intel 8254 datasheet, "Functional Description" (the counter's block diagram), "Write
Operations", "Read Operations" and "Operation Common to All Modes".
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from enum import IntEnum

from devserver.models.pit8254.modes import MODES, Mode

#: The clock runs at 14.31818... MHz / 12 = 105/88 MHz, so that 21 pulses take exactly 17600 ns.
PULSES = 21
PULSES_NS = 17600


def pulses_at(now_ns: int) -> int:
    """How many CLK pulses have passed at VM time ``now_ns``."""
    return now_ns * PULSES // PULSES_NS


def pulse_ns(pulse: int) -> int:
    """The first whole nanosecond of VM time at which pulse number ``pulse`` has passed."""
    return -(-pulse * PULSES_NS // PULSES)


#: The most that VM time can come to, in nanoseconds: it has 64 bits on the wire.
LAST_NS = (1 << 64) - 1

#: The values that the fields of a counter's state can have.
_RANGES = {
    "control": (0x10, 0x3F),
    "clock": (0, LAST_NS * PULSES // PULSES_NS),
    "count_register": (0, 0xFFFF),
    "element": (0, 0xFFFF),
    "write_lsb": (0, 0xFF),
    "latched_count": (0, 0xFFFF),
    "latched_reads": (0, 2),
    "latched_status": (0, 0xFF),
}


class ReadWrite(IntEnum):
    """The RW1, RW0 field of a control word: which bytes of a count cross the bus."""

    LATCH = 0  # not an access mode: makes the control word a counter latch command
    LSB = 1
    MSB = 2
    LSB_MSB = 3


@dataclass
class PitCounter:
    """The state of one counter; what the guest and the pins see of it are its methods.

    ``control`` holds the low six bits of the control word as written (RW, mode, BCD),
    ``count_register`` the last complete count (None between a control word and its first count),
    ``element`` the counting element. The datasheet leaves the state at power-on open; this counter
    begins in mode 0 with no count, which keeps OUT low.
    """

    gate: bool = True
    control: int = ReadWrite.LSB_MSB << 4
    out: bool = False
    clock: int = 0
    count_register: int | None = None
    element: int = 0
    null_count: bool = True
    counting: bool = False  # a count was loaded since the control word
    armed: bool = False  # modes 0, 1, 4, 5: OUT is still to change at terminal count
    odd: bool = False  # mode 3: the count loaded last was odd
    load_due: bool = False  # the next pulse loads because a count was written
    triggered: bool = False  # the trigger flip-flop, sampled and reset by the next pulse
    read_msb: bool = False  # the read flip-flop
    write_msb: bool = False  # the write flip-flop
    write_lsb: int = 0
    latched_count: int | None = None
    latched_reads: int = 0  # reads that are still to come from the latched count
    latched_status: int | None = None

    @property
    def bcd(self) -> bool:
        return bool(self.control & 1)

    @property
    def access(self) -> int:
        """The :class:`ReadWrite` value of the control word, as a plain number."""
        return self.control >> 4

    @property
    def mode(self) -> Mode:
        return MODES[self.control >> 1 & 7]

    def fault(self) -> str | None:
        """What makes this a state that no counter is in, or None; for states from elsewhere."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                return f"{name} is {value}, and not from {low} to {high}"
        if self.counting and self.count_register is None:
            return "it counts, but has no count"
        if self.latched_count is not None and self.latched_reads == 0:
            return "a count is latched, but no read of it is to come"
        edge = self.next_edge()
        if edge is not None and edge <= self.clock:
            return f"OUT is to change at pulse {edge}, and {self.clock} have passed"
        return None

    # -- time -----------------------------------------------------------------------------------

    def run_to(self, clock: int) -> None:
        """Applies every CLK pulse up to number ``clock``; an earlier one changes nothing."""
        pulses = clock - self.clock
        if pulses <= 0:
            return
        self.clock = clock
        if self.load_due or self.triggered:
            if self.count_register is not None:
                self.mode.load(self, self.count_register)
                self.counting = True
                pulses -= 1
            self.load_due = self.triggered = False
        if pulses and self.counting:
            self.mode.run(self, pulses)

    def next_edge(self) -> int | None:
        """The number of the CLK pulse at which OUT next changes, left to itself; None if never."""
        if self.count_register is not None and (self.load_due or self.triggered):
            ahead = copy(self)
            ahead.run_to(self.clock + 1)
            return ahead.clock if ahead.out != self.out else ahead.next_edge()
        pulses = self.mode.pulses_to_edge(self) if self.counting else None
        return None if pulses is None else self.clock + pulses

    # -- the bus and the GATE pin: all of these act at once, between two pulses -----------------

    def program(self, control: int) -> None:
        """Takes the low six bits of a control word: resets the control logic and sets OUT."""
        self.control = control & 0x3F
        self.out = self.mode.initial_out
        self.count_register = None
        self.null_count = True
        self.counting = self.armed = self.load_due = self.triggered = False
        self.read_msb = self.write_msb = False
        self.latched_count = self.latched_status = None

    def set_gate(self, level: bool) -> None:
        """Drives the GATE pin."""
        if level == self.gate:
            return
        self.gate = level
        if level:
            self.triggered = self.mode.triggers
        elif self.mode.periodic:
            self.out = True

    def write(self, value: int) -> None:
        """Takes a byte of a new count, which is complete with its last byte.

        The count register is cleared when the counter is programmed, so that the byte that a
        one-byte access does not carry is zero.
        """
        if self.access == ReadWrite.LSB_MSB and not self.write_msb:
            self.write_msb = True
            self.write_lsb = value
            self.mode.half_written(self)
            return
        if self.access == ReadWrite.LSB:
            count = value
        elif self.access == ReadWrite.MSB:
            count = value << 8
        else:
            count = value << 8 | self.write_lsb
            self.write_msb = False
        self.count_register = count
        self.null_count = True
        self.mode.written(self)

    def read(self) -> int:
        """Gives a byte: of the latched status, else of the latched count, else of the count."""
        if self.latched_status is not None:
            status, self.latched_status = self.latched_status, None
            return status
        count = self.element
        if self.latched_count is not None:
            count = self.latched_count
            self.latched_reads -= 1
            if self.latched_reads == 0:
                self.latched_count = None
        if self.access == ReadWrite.LSB:
            return count & 0xFF
        if self.access == ReadWrite.MSB:
            return count >> 8
        self.read_msb = not self.read_msb
        return count & 0xFF if self.read_msb else count >> 8

    def latch_count(self) -> None:
        """Holds the count until it has been read; ignored while one is already held."""
        if self.latched_count is None:
            self.latched_count = self.element
            self.latched_reads = 2 if self.access == ReadWrite.LSB_MSB else 1

    def latch_status(self) -> None:
        """Holds the status byte until it has been read; ignored while one is already held."""
        if self.latched_status is None:
            self.latched_status = self.out << 7 | self.null_count << 6 | self.control
