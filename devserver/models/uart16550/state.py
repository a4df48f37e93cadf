"""What a 16550 UART remembers, and whether a snapshot of that can be true."""

from __future__ import annotations

from dataclasses import dataclass, field

from devserver.models.uart16550.fifo import Receiver, Transmitter
from devserver.models.uart16550.registers import FIFO_SIZE, POWER_ON_DIVISOR, POWER_ON_LINES

_BYTES = ("ier", "fcr", "lcr", "mcr", "scr", "modem_inputs", "modem_deltas")


@dataclass
class UartState:
    """The registers, the two halves of the line, and what is not yet told by interrupt."""

    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    scr: int = 0
    divisor: int = POWER_ON_DIVISOR
    word_length_chosen: bool = False
    thre_pending: bool = False
    modem_inputs: int = POWER_ON_LINES  # what the far end asserts, as MSR bits 7-4
    modem_deltas: int = 0  # MSR bits 3-0
    rx: Receiver = field(default_factory=Receiver)
    tx: Transmitter = field(default_factory=Transmitter)

    def damage(self) -> str:
        """What no chip can hold, in words; empty if nothing."""
        for name in _BYTES:
            if not 0 <= getattr(self, name) <= 0xFF:
                return f"{name} is {getattr(self, name)}, which is no byte"
        if not 0 <= self.divisor <= 0xFFFF:
            return f"the divisor is {self.divisor}, which is more than 16 bits"
        data, errors, held = len(self.rx.data), len(self.rx.errors), len(self.tx.held)
        if data != errors or max(data, held) > FIFO_SIZE:
            return (
                f"{data} characters received with errors of {errors}, {held} to be sent; "
                f"a FIFO holds {FIFO_SIZE}"
            )
        return ""
