"""Where QEMU's devices do otherwise than ours, with the reason that ours do not do likewise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qemu_pc import In, Out, Step

from devserver.models.mc146818.device import RegisterB, RegisterC
from devserver.models.pit8254.device import PortB
from devserver.models.uart16550.registers import Msr

PIT, PIT_CONTROL, PORT_B, RTC, COM1 = 0x40, 0x43, 0x61, 0x70, 0x3F8
RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(COM1, COM1 + 8)
REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D, CENTURY = 0x0A, 0x0B, 0x0C, 0x0D, 0x32


@dataclass
class Guest:
    """What a guest knows of the devices' state from its own writes."""

    index: int = 0
    register_b: int = 0
    writes_due: tuple[int, ...] = (2, 2, 2)  # of a count, before the counter runs
    access_mode: tuple[int, ...] = (3, 3, 3)
    counter_mode: tuple[int, ...] = (0, 0, 0)

    def note(self, step: Step) -> None:
        if not isinstance(step, Out):
            return
        value = step.value
        if step.port == RTC:
            self.index = value & 0x7F
        elif step.port == RTC + 1 and self.index == REGISTER_B:
            self.register_b = value
        elif step.port == PIT_CONTROL and value >> 6 < 3 and value >> 4 & 3:
            access = value >> 4 & 3
            self._set(value >> 6, access, 2 if access == 3 else 1)
            self.counter_mode = _with(self.counter_mode, value >> 6, value >> 1 & 7)
        elif PIT <= step.port < PIT_CONTROL:
            counter = step.port - PIT
            self._set(counter, self.access_mode[counter], max(0, self.writes_due[counter] - 1))

    def _set(self, counter: int, access: int, due: int) -> None:
        self.access_mode = _with(self.access_mode, counter, access)
        self.writes_due = _with(self.writes_due, counter, due)


def _with(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])


@dataclass(frozen=True)
class Difference:
    """Something that QEMU's device does otherwise, and why ours does not do likewise.

    ``uncompared`` tells the bits of what a step reads that are not compared; where it is None,
    the tests' steps stay clear of it (``avoided`` says how).
    """

    reason: str
    avoided: str = ""
    uncompared: Callable[[Guest, In], int] | None = None


def bits_at(port: int, bits: int) -> Callable[[Guest, In], int]:
    return lambda guest, step: bits if step.port == port else 0


def rtc_bits(index: int, bits: int, *, unless_enabled: int) -> Callable[[Guest, In], int]:
    def uncompared(guest: Guest, step: In) -> int:
        here = step.port == RTC + 1 and guest.index == index
        return bits if here and not guest.register_b & unless_enabled else 0

    return uncompared


def out_before_the_count(guest: Guest, step: In) -> int:
    return PortB.TIMER2_OUT if step.port == PORT_B and guest.writes_due[2] else 0


def out_of_mode_2(guest: Guest, step: In) -> int:
    return PortB.TIMER2_OUT if step.port == PORT_B and guest.counter_mode[2] == 2 else 0


DIFFERENCES: tuple[Difference, ...] = (
    # any device
    Difference(
        "QEMU's interpreter drops an access that is wider than the device or not aligned, where "
        "its KVM path and the ISA bus split it",
        avoided="wide accesses go to the test device only, aligned",
    ),
    Difference(
        "QEMU has no latch behind port 80h and answers all-ones; a PC has one there",
        uncompared=bits_at(0x80, 0xFF),
    ),
    # 16550
    Difference(
        "QEMU's port begins with OUT2 set, as after a PC BIOS; a reset clears MCR (PC16550D 8.8)",
        avoided="the comparison of power-on values leaves MCR out",
    ),
    Difference(
        "QEMU has no gate behind OUT2: its line follows the chip's pin, a PC's only while OUT2 is "
        "set",
        avoided="OUT2 is always set",
    ),
    Difference(
        "QEMU's loopback shows the modem outputs as inputs but notes no change of them; the chip "
        "does (PC16550D 8.8)",
        uncompared=bits_at(MSR, Msr.DCTS | Msr.DDSR | Msr.TERI | Msr.DDCD),
        avoided="the modem status interrupt stays disabled",
    ),
    Difference(
        "QEMU neither cuts characters to the word length nor receives a break in loopback",
        avoided="words have 8 bits, and SB stays clear",
    ),
    Difference(
        "QEMU obeys the FIFO reset bits of FCR while bit 0 is clear; the chip does not program "
        "them then (PC16550D 8.5)",
        avoided="a write of FCR with bit 0 clear has all bits clear",
    ),
    # 8254
    Difference(
        "QEMU begins to count at the write of a count; the chip loads it with the next CLK pulse "
        "and the pulses run freely, so ours may be up to two pulses behind",
        avoided="one pulse or two later will do: see pit_runs in its tests",
    ),
    Difference(
        "QEMU changes OUT when the count is complete; the chip already with the control word",
        uncompared=out_before_the_count,
        avoided="the line is not compared until counter 0 has its count, nor OUT in the status",
    ),
    Difference(
        "QEMU's OUT in mode 2 begins low, its interrupt line rises a pulse late, and what it shows "
        "at port B is high for one pulse, where the chip's is low for one",
        uncompared=out_of_mode_2,
        avoided="in mode 2 only the line's rises are compared, and one may be still to come",
    ),
    Difference(
        "QEMU takes a new count of modes 2 and 3 at once, the chip at the end of a period or half",
        avoided="a new count in these modes comes with a control word",
    ),
    Difference(
        "QEMU has no null count flag in the status",
        avoided="bit 6 is not compared: see STATUS in its tests",
    ),
    Difference(
        "QEMU does not stop counting at a low GATE, nor wait for a rising one in modes 1 and 5, "
        "and has OUT the wrong way round in modes 4 and 5",
        avoided="modes 0, 2 and 3, with GATE high",
    ),
    Difference(
        "QEMU takes no notice of the BCD bit when it counts", avoided="all counts are binary"
    ),
    Difference(
        "QEMU counts an odd count of mode 3 down in odd steps; the chip loads it less one",
        avoided="counts are even",
    ),
    Difference(
        "QEMU toggles port B's refresh bit at each read; a PC with each refresh, every 15 us",
        uncompared=bits_at(PORT_B, PortB.REFRESH),
    ),
    # MC146818
    Difference(
        "QEMU sets the periodic flag only while its interrupt is enabled; the chip always (data "
        "sheet, register C)",
        uncompared=rtc_bits(REGISTER_C, RegisterC.PF, unless_enabled=RegisterB.PIE),
        avoided="PIE is set from the start or not at all",
    ),
    Difference(
        "QEMU's periods keep step with its own time, the chip's with the divider chain",
        avoided="periodic interrupts are counted, and one more or less will do",
    ),
    Difference(
        "QEMU works out the day of the week from the date; the chip counts on what was written",
        avoided="the day of the week is always that of the date",
    ),
    Difference(
        "QEMU has no daylight saving", avoided="DSE stays clear; it is tested with our model alone"
    ),
)


def uncompared(guest: Guest, step: In) -> int:
    """The bits of what this step reads that may differ."""
    bits = 0
    for difference in DIFFERENCES:
        if difference.uncompared is not None:
            bits |= difference.uncompared(guest, step)
    return bits
