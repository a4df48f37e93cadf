"""The bits of the MC146818's four registers, by their names in the Motorola data sheet."""

from __future__ import annotations

from enum import IntFlag


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
