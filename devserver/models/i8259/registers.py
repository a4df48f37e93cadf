"""The 8259A's words, bits and ports by their names in the data sheet.

Source: Intel 8259A data sheet (order number 231468), "Programming the 8259A": initialization
command words ICW1 to ICW4, operation command words OCW1 to OCW3. The trigger registers ELCR1 and
ELCR2 are no part of the chip: Intel 82371AB (PIIX4) data sheet, "Edge/level control registers".
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from devserver.models.registers import Access, Policy, Region, Register, Space

LEVELS = 8
#: Interrupt lines of the pair; line 2 is the master's input for the slave.
LINES = 16
CASCADE = 2
ALL = 0xFF

#: Where a PC has the regions of the pair.
MASTER_BASE = 0x20
SLAVE_BASE = 0xA0
ELCR_BASE = 0x4D0
#: Where the bus's own cycles are, which are no ports on a PC; whoever wires the pair may move it.
BUS_BASE = 0
#: In region ``bus``: the first of the interrupt lines.
FIRST_LINE_OFFSET = 16


class Icw1(IntFlag):
    """Starts an initialization; bits 7-5 and ADI matter to an MCS-80/85 system only."""

    D4 = 0x10  # tells ICW1 from OCW2 and OCW3
    LTIM = 0x08
    ADI = 0x04
    SNGL = 0x02
    IC4 = 0x01


class Icw4(IntFlag):
    """Modes. UPM is the data sheet's uPM; BUF and MS tell the pins of a buffered system."""

    SFNM = 0x10
    BUF = 0x08
    MS = 0x04
    AEOI = 0x02
    UPM = 0x01


class Ocw2(IntEnum):
    """What R, SL and EOI (bits 7-5) ask for together; bits 2-0 are a level."""

    ROTATE_IN_AEOI_CLEAR = 0x00
    NON_SPECIFIC_EOI = 0x20
    NO_OPERATION = 0x40
    SPECIFIC_EOI = 0x60
    ROTATE_IN_AEOI_SET = 0x80
    ROTATE_ON_NON_SPECIFIC_EOI = 0xA0
    SET_PRIORITY = 0xC0
    ROTATE_ON_SPECIFIC_EOI = 0xE0


class Ocw3(IntFlag):
    """Special mask mode, poll and what a status read gives."""

    ESMM = 0x40
    SMM = 0x20
    D3 = 0x08  # tells OCW3 from OCW2
    P = 0x04
    RR = 0x02
    RIS = 0x01


class PollWord(IntFlag):
    """I: an interrupt was requested, its level is in bits 2-0."""

    I = 0x80  # noqa: E741  the data sheet's name


class Awaited(IntEnum):
    """The word that the next write with A0 high brings: OCW1, or an initialization goes on."""

    OCW1 = 1
    ICW2 = 2
    ICW3 = 3
    ICW4 = 4


OCW2_COMMAND = 0xE0
LEVEL_MASK = 0x07
#: T7-T3 of ICW2, in 8086 mode.
VECTOR_MASK = 0xF8
#: Lines that can't be level-triggered: 0, 1 and 2; 8 and 13.
ELCR1_WRITABLE = 0xF8
ELCR2_WRITABLE = 0xDE

_SHEET = "8259A data sheet"
_PIIX = "82371AB data sheet"


def _chip(name: str, prefix: str) -> Region:
    return Region(
        name=name,
        size=2,
        registers=(
            Register(
                offset=0,
                name=f"{prefix}_COMMAND",
                source=f"{_SHEET}, A0 = 0: ICW1, OCW2, OCW3; reads IRR, ISR or the poll word",
            ),
            Register(
                offset=1,
                name=f"{prefix}_DATA",
                source=f"{_SHEET}, A0 = 1: ICW2, ICW3, ICW4, OCW1; reads IMR",
            ),
        ),
    )


MASTER = _chip("master", "MASTER")
SLAVE = _chip("slave", "SLAVE")
ELCR = Region(
    name="elcr",
    size=2,
    registers=(
        Register(offset=0, name="ELCR1", source=f"{_PIIX}, edge/level control, lines 3 to 7"),
        Register(
            offset=1, name="ELCR2", source=f"{_PIIX}, edge/level control, lines 9 to 12, 14, 15"
        ),
    ),
)
BUS = Region(
    name="bus",
    space=Space.BUS,
    size=FIRST_LINE_OFFSET + LINES,
    registers=(
        Register(
            offset=0,
            name="ACKNOWLEDGE",
            access=Access.RO,
            reset=LEVEL_MASK,  # nothing is requested: the default IR7
            source=f"{_SHEET}, interrupt sequence: both INTA pulses, gives the vector",
        ),
        *(
            Register(
                offset=FIRST_LINE_OFFSET + line,
                name=f"IRQ{line}",
                access=Access.WO,
                policy=Policy.POSTED,
                source=f"{_SHEET}, pins IR0 to IR7: bit 0 is the line's level",
            )
            for line in range(LINES)
        ),
    ),
)
