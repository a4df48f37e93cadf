"""The reset control register of a PCI chipset, CF9h.

Source: Intel 82371AB (PIIX4) datasheet, "RC - Reset Control Register"; Intel ICH datasheets,
"RST_CNT".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from devserver.models.device import Device, Region, Register, Signal


class Rc(IntFlag):
    """The bits of the register; its others read 0."""

    SRST = 0x02  # a reset is of the whole machine, not of the processor alone
    RCPU = 0x04  # 0 -> 1: reset
    FULL = 0x08  # with the power cycled


_WRITABLE = int(Rc.SRST | Rc.RCPU | Rc.FULL)


class ResetControl(Device):
    """A write that turns RCPU on raises :attr:`Signal.RESET`, whatever kind SRST and FULL choose.

    A processor alone is not reset: a guest that asks for either kind wants to start anew.
    """

    kind = "resetctl"
    regions = (
        Region(
            name="io",
            size=1,
            registers=(
                Register(
                    offset=0,
                    name="RC",
                    storage="control",
                    source='82371AB datasheet, "RC - Reset Control Register"',
                ),
            ),
        ),
    )

    @dataclass
    class State:
        control: int = 0

    state: State

    def write_rc(self, value: int, now_ns: int) -> None:
        rises = value & ~self.state.control & Rc.RCPU
        self.state.control = value & _WRITABLE
        if rises:
            self.signal(Signal.RESET)
