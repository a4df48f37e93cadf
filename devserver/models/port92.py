"""System control port A, 92h: the quick ways to open the A20 gate and to reset.

Source: IBM PS/2 Hardware Interface Technical Reference, "System Control Port A"; Intel ICH
datasheets, "PORT92".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from devserver.models.device import Device, Region, Register, Signal


class PortA(IntFlag):
    """The bits of the port that chipsets still have; its others read 0."""

    FAST_RESET = 0x01  # 0 -> 1: reset
    A20_GATE = 0x02  # 1: address line 20 is the processor's


_WRITABLE = int(PortA.FAST_RESET | PortA.A20_GATE)


class SystemControlPortA(Device):
    """Turning FAST_RESET on raises :attr:`Signal.RESET`.

    A20_GATE reads back what was written, and is 1 at first: no hypervisor here has a gate, so
    address line 20 is always the processor's own, whatever the bit says.
    """

    kind = "port92"
    regions = (
        Region(
            name="io",
            size=1,
            registers=(
                Register(
                    offset=0,
                    name="PORTA",
                    reset=int(PortA.A20_GATE),
                    storage="control",
                    leased=True,
                    source='PS/2 Technical Reference, "System Control Port A"',
                ),
            ),
        ),
    )

    @dataclass
    class State:
        control: int = int(PortA.A20_GATE)

    state: State

    def write_porta(self, value: int, now_ns: int) -> None:
        rises = value & ~self.state.control & PortA.FAST_RESET
        self.state.control = value & _WRITABLE
        if rises:
            self.signal(Signal.RESET)
