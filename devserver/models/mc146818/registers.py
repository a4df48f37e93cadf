"""The MC146818's ports, and the bits of its four registers by their names in the data sheet."""

from __future__ import annotations

from enum import IntFlag

from devserver.models.registers import Access, Policy, Region, Register

_SHEET = "MC146818 data sheet"


class RegisterA(IntFlag):
    """Update in progress, divider and rate selection."""

    UIP = 0x80
    DV2 = 0x40
    DV1 = 0x20
    DV0 = 0x10
    RS3 = 0x08
    RS2 = 0x04
    RS1 = 0x02
    RS0 = 0x01


class RegisterB(IntFlag):
    """What is enabled, and the format of the time."""

    SET = 0x80
    PIE = 0x40
    AIE = 0x20
    UIE = 0x10
    SQWE = 0x08
    DM = 0x04
    HOURS24 = 0x02  # the data sheet's 24/12
    DSE = 0x01


class RegisterC(IntFlag):
    """Interrupt flags; each but IRQF lies where register B has its enable bit."""

    IRQF = 0x80
    PF = 0x40
    AF = 0x20
    UF = 0x10


class RegisterD(IntFlag):
    """VRT: the RAM and the time are valid (the battery has not failed)."""

    VRT = 0x80


DIVIDER_32KHZ = RegisterA.DV1
#: The PC BIOS selects the 32.768 kHz divider and a 1024 Hz rate; BCD and 24 hours.
A_RESET = int(DIVIDER_32KHZ | RegisterA.RS2 | RegisterA.RS1)
B_RESET = int(RegisterB.HOURS24)

IO = Region(
    name="io",
    size=2,
    registers=(
        Register(
            offset=0,
            name="INDEX",
            access=Access.WO,
            policy=Policy.COALESCED,
            source="PC/AT Technical Reference, port 70h; only accesses to the data port "
            "show what was selected",
        ),
        Register(
            offset=1,
            name="CLOCK",
            bank="clock",
            leased=True,
            source=f"{_SHEET}, time, calendar and alarm locations",
        ),
        Register(
            offset=1,
            name="REGISTER_A",
            bank="A",
            reset=A_RESET,
            leased=True,
            source=f"{_SHEET}, register A",
        ),
        Register(
            offset=1,
            name="REGISTER_B",
            bank="B",
            reset=B_RESET,
            leased=True,
            source=f"{_SHEET}, register B",
        ),
        Register(
            offset=1,
            name="REGISTER_C",
            bank="C",
            access=Access.RO,
            source=f"{_SHEET}, register C",
        ),
        Register(
            offset=1,
            name="REGISTER_D",
            bank="D",
            access=Access.RO,
            reset=int(RegisterD.VRT),
            leased=True,
            source=f"{_SHEET}, register D",
        ),
        Register(
            offset=1,
            name="NVRAM",
            bank="nvram",
            leased=True,
            source=f"{_SHEET}, static CMOS RAM; PC/AT Technical Reference",
        ),
    ),
)
