"""16550A UART: the serial port of a PC.

Interrupts, highest priority first. IIR names the highest one that is pending and enabled::

    IIR 3-0  priority  source                       IER    goes away with
    -------  --------  ---------------------------  -----  -------------------------------------
    0001     -         none                         -      -
    0110     1         overrun, parity or framing   ELSI   a read of LSR
                       error, break
    1100     2         character timeout: data      ERBFI  a read of RBR
                       waited for 4 characters
    0100     2         FIFO at its trigger level;   ERBFI  reads of RBR: below the trigger level;
                       16450 mode: data ready              16450 mode: the first
    0010     3         transmitter holding          ETBEI  a read of IIR that names it, or a
                       register (FIFO) empty               write of THR
    0000     4         change of CTS, DSR, DCD,     EDSSI  a read of MSR
                       or end of RI

On a PC the chip's interrupt pin reaches the bus through a gate that OUT2 opens. The gate here
follows MCR's bit even in loopback, where the OUT2 *pin* is inactive, so that the loopback's
interrupts, which the datasheet calls fully operational, can be used.

Choices where the datasheet leaves them:

* DLL and DLM power up with 9600 baud. The far end asserts DCD, DSR and CTS until it hangs up.
* LCR powers up with 5-bit words, and on a PC it is the firmware that sets 8. Guests without
  firmware print without setting anything; so characters cross the line to the world whole
  until the guest first selects a word length other than 5. Loopback follows LCR from the start.
* A break while in loopback reaches the receiver at once, as one zero character.
* Turning on ETBEI while the holding register is empty raises its interrupt anew (drivers rely on
  it), and so does a reset of the transmit FIFO.

Source: National Semiconductor PC16550D datasheet; gate and clock: IBM PC/AT Technical Reference,
serial/parallel adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devserver.models.device import Device, Lease, StateError
from devserver.models.uart16550 import leases as writes
from devserver.models.uart16550.leases import banked, line_changing, steadied
from devserver.models.uart16550.registers import (
    DATA,
    DIVISOR,
    IO,
    TRIGGER_LEVELS,
    Fcr,
    Ier,
    Iir,
    Lcr,
    Mcr,
    Msr,
    bit_ns,
    break_errors,
    character_ns,
    word_mask,
)
from devserver.models.uart16550.state import UartState


class Uart16550(Device):
    """A 16550A with its FIFOs, its interrupt and its modem lines.

    The channel ``tx`` carries what the guest sends, ``rx`` what the far end does; the end of
    ``rx`` means that the far end hung up (DCD drops). Nothing from ``rx`` is ever lost to an
    overrun: what has no room waits outside, and so does everything while in loopback.
    """

    kind = "uart16550"
    regions = (IO,)
    outputs = ("irq",)
    feeds = ("rx",)
    emits = ("tx",)

    @dataclass
    class State(UartState):
        """See there."""

    @dataclass(frozen=True)
    class Options:
        """``paced``: characters take their time on the line, as the baud rate has it.

        Otherwise sending is instantaneous (THRE and TEMT are always set), and the receive FIFO
        fills as fast as the world supplies.
        """

        paced: bool = False

    state: State
    options: Options

    def load(self, snapshot: Mapping[str, Any]) -> None:
        before = self.state
        super().load(snapshot)
        wrong = self.state.damage()
        if wrong:
            self.state = before
            raise StateError(f"{self.kind}: {wrong}")

    def bank(self) -> str:
        return DIVISOR if self.state.lcr & Lcr.DLAB else DATA

    # -- data ---------------------------------------------------------------------------------

    def read_rbr(self, now_ns: int) -> int:
        rx, fifo = self.state.rx, self._fifo
        character = rx.take(fifo)
        rx.timed_out = False
        if fifo:
            rx.restart_timeout(now_ns, self._character_ns())
        self._drive_irq()
        return character

    def write_thr(self, value: int, now_ns: int) -> None:
        self._clear_thre_interrupt()
        if self.options.paced:
            self.state.tx.put(value, self._fifo)
            self._shift(now_ns)
        else:
            self._send(value, now_ns)
            self._raise_thre_interrupt()

    def write_thr_run(self, values: bytes, times_ns: Sequence[int]) -> bool:
        state = self.state
        if self.options.paced or state.mcr & Mcr.LOOP or state.ier & Ier.ETBEI:
            return False
        self._clear_thre_interrupt()
        if not state.lcr & Lcr.SB:
            mask = self._wire_mask()
            self.emit("tx", values if mask == 0xFF else bytes(c & mask for c in values))
        return True

    def feed(self, channel: str, data: bytes, now_ns: int) -> int:
        rx, fifo = self.state.rx, self._fifo
        if self.state.mcr & Mcr.LOOP:
            return 0
        room = rx.room(fifo)
        if self.options.paced:
            busy = rx.next_due_ns is not None and rx.next_due_ns > now_ns
            room = 0 if busy else min(room, 1)
        took = min(room, len(data))
        mask = self._wire_mask()
        for character in data[:took]:
            self._receive(character & mask, 0, now_ns)
        if took and self.options.paced:
            rx.next_due_ns = now_ns + self._character_ns()
        return took

    def feed_end(self, channel: str, now_ns: int) -> None:
        before = self._modem_lines()
        self.state.modem_inputs &= ~Msr.DCD
        self._note_modem_change(before)

    # -- interrupts ---------------------------------------------------------------------------

    def write_ier(self, value: int, now_ns: int) -> None:
        state = self.state
        turned_on = value & ~state.ier
        state.ier = value & Ier.ALL
        if turned_on & Ier.ETBEI:
            # Not in the datasheet, but so the chip does and drivers rely on it: an interrupt
            # that a read of IIR has cleared comes again.
            state.thre_pending = state.tx.empty
        self._drive_irq()

    def read_iir(self, now_ns: int) -> int:
        source = self._interrupt()
        if source == Iir.THR_EMPTY:
            self._clear_thre_interrupt()
        return source | Iir.FIFOS_ENABLED if self._fifo else source

    def _interrupt(self) -> int:
        """The pending enabled interrupt of the highest priority, as IIR's low four bits."""
        state = self.state
        ier, rx = state.ier, state.rx
        if ier & Ier.ELSI and rx.line_status:
            return Iir.LINE_STATUS
        if ier & Ier.ERBFI:
            if rx.timed_out:
                return Iir.CHARACTER_TIMEOUT
            if len(rx.data) >= self._trigger_level():
                return Iir.RECEIVED_DATA
        if ier & Ier.ETBEI and state.thre_pending:
            return Iir.THR_EMPTY
        if ier & Ier.EDSSI and state.modem_deltas:
            return Iir.MODEM_STATUS
        return Iir.NONE

    def _drive_irq(self) -> None:
        gate_open = bool(self.state.mcr & Mcr.OUT2)
        self.set_line("irq", gate_open and self._interrupt() != Iir.NONE)

    def _clear_thre_interrupt(self) -> None:
        if self.state.thre_pending:
            self.state.thre_pending = False
            self._drive_irq()

    def _raise_thre_interrupt(self) -> None:
        if self.state.ier & Ier.ETBEI:
            self.state.thre_pending = True
            self._drive_irq()

    # -- FIFO and line control ------------------------------------------------------------------

    @property
    def _fifo(self) -> bool:
        return self.state.fcr & Fcr.FIFO_ENABLE != 0

    def _trigger_level(self) -> int:
        return TRIGGER_LEVELS[self.state.fcr >> 6] if self._fifo else 1

    def write_fcr(self, value: int, now_ns: int) -> None:
        state = self.state
        if not value & Fcr.FIFO_ENABLE:
            value = 0  # the other bits are programmed only together with this one
        changed_mode = (value ^ state.fcr) & Fcr.FIFO_ENABLE
        state.fcr = value & Fcr.KEPT
        if changed_mode or value & Fcr.RCVR_FIFO_RESET:
            state.rx.clear()
        if changed_mode or value & Fcr.XMIT_FIFO_RESET:
            state.tx.clear()
            self._raise_thre_interrupt()
        self._drive_irq()

    def write_lcr(self, value: int, now_ns: int) -> None:
        was_break = self._looped_break()
        self.state.lcr = value
        if value & Lcr.WLS:
            self.state.word_length_chosen = True
        self._receive_break(was_break, now_ns)

    def read_dll(self, now_ns: int) -> int:
        return self.state.divisor & 0xFF

    def write_dll(self, value: int, now_ns: int) -> None:
        self.state.divisor = self.state.divisor & 0xFF00 | value

    def read_dlm(self, now_ns: int) -> int:
        return self.state.divisor >> 8

    def write_dlm(self, value: int, now_ns: int) -> None:
        self.state.divisor = value << 8 | self.state.divisor & 0xFF

    # -- status and modem ---------------------------------------------------------------------

    def read_lsr(self, now_ns: int) -> int:
        rx = self.state.rx
        value = rx.status(self._fifo) | self.state.tx.status
        if rx.line_status:
            rx.clear_errors()
            self._drive_irq()
        return value

    def write_mcr(self, value: int, now_ns: int) -> None:
        before, was_break = self._modem_lines(), self._looped_break()
        self.state.mcr = value & Mcr.ALL
        self._note_modem_change(before)
        self._receive_break(was_break, now_ns)

    def read_msr(self, now_ns: int) -> int:
        value = self._modem_lines() | self.state.modem_deltas
        if self.state.modem_deltas:
            self.state.modem_deltas = 0
            self._drive_irq()
        return value

    def _modem_lines(self) -> int:
        """MSR bits 7-4: the modem's lines, or in loopback the chip's own outputs."""
        mcr = self.state.mcr
        if not mcr & Mcr.LOOP:
            return self.state.modem_inputs
        return (
            (Msr.CTS if mcr & Mcr.RTS else 0)
            | (Msr.DSR if mcr & Mcr.DTR else 0)
            | (Msr.RI if mcr & Mcr.OUT1 else 0)
            | (Msr.DCD if mcr & Mcr.OUT2 else 0)
        )

    def _note_modem_change(self, before: int) -> None:
        after = self._modem_lines()
        self.state.modem_deltas |= ((before ^ after) & Msr.DELTA_INPUTS) >> 4
        if before & ~after & Msr.RI:
            self.state.modem_deltas |= Msr.TERI
        self._drive_irq()

    # -- leases: lanes are offsets; which writes leave which answers alone -------------------------

    def lease_ier(self, now_ns: int) -> Lease:
        return banked(self.state.ier)

    def lease_dlm(self, now_ns: int) -> Lease:
        return banked(self.state.divisor >> 8)

    def lease_lcr(self, now_ns: int) -> Lease:
        return steadied(self.state.lcr, writes.LCR)

    def lease_mcr(self, now_ns: int) -> Lease:
        return steadied(self.state.mcr, writes.MCR)

    def lease_scr(self, now_ns: int) -> Lease:
        return steadied(self.state.scr, writes.SCR)

    def lease_iir(self, now_ns: int) -> Lease | None:
        source = self._interrupt()
        if source == Iir.THR_EMPTY:
            return None  # a read takes the interrupt back
        value = source | (Iir.FIFOS_ENABLED if self._fifo else 0)
        changing = writes.IER | writes.FCR | self._unquiet()
        if self.state.ier & Ier.ETBEI:
            changing |= writes.THR
        return steadied(value, changing, self.deadline_ns() or 0)

    def lease_lsr(self, now_ns: int) -> Lease | None:
        if self.state.rx.line_status:
            return None  # a read takes the errors away
        value = self.state.rx.status(self._fifo) | self.state.tx.status
        until_ns = self.deadline_ns() if self.options.paced else None
        return steadied(value, writes.FCR | self._unquiet(), until_ns or 0)

    def lease_msr(self, now_ns: int) -> Lease | None:
        if self.state.modem_deltas:
            return None  # a read takes them away
        return steadied(self._modem_lines(), writes.MCR)

    def _unquiet(self) -> int:
        return line_changing(looped=bool(self.state.mcr & Mcr.LOOP), paced=self.options.paced)

    def write_scr_run(self, values: bytes, times_ns: Sequence[int]) -> bool:
        self.state.scr = values[-1]
        return True

    # -- the serial line ----------------------------------------------------------------------

    def _send(self, character: int, now_ns: int) -> None:
        """A character leaves the shift register. A break holds the line: nothing gets through."""
        if self.state.lcr & Lcr.SB:
            return
        if self.state.mcr & Mcr.LOOP:
            self._receive(character & word_mask(self.state.lcr), 0, now_ns)
        else:
            self.emit("tx", bytes((character & self._wire_mask(),)))

    def _receive(self, character: int, errors: int, now_ns: int) -> None:
        fifo = self._fifo
        self.state.rx.put(character, errors, fifo)
        if fifo:
            self.state.rx.restart_timeout(now_ns, self._character_ns())
        self._drive_irq()

    def _looped_break(self) -> bool:
        return bool(self.state.lcr & Lcr.SB and self.state.mcr & Mcr.LOOP)

    def _receive_break(self, was_break: bool, now_ns: int) -> None:
        """Receives a break that has just begun; however long it lasts, it is one character."""
        if self._looped_break() and not was_break:
            self._receive(0, break_errors(self.state.lcr), now_ns)

    def _wire_mask(self) -> int:
        return word_mask(self.state.lcr) if self.state.word_length_chosen else 0xFF

    def _character_ns(self) -> int:
        return character_ns(self.state.lcr, self.state.divisor)

    # -- time ---------------------------------------------------------------------------------

    def deadline_ns(self) -> int | None:
        rx, tx = self.state.rx, self.state.tx
        if not self.options.paced:
            return rx.timeout_due_ns
        dues = (rx.timeout_due_ns, rx.next_due_ns, tx.empty_due_ns, tx.shift_due_ns)
        return min((due for due in dues if due is not None), default=None)

    def advance(self, now_ns: int) -> None:
        while (due_ns := self.deadline_ns()) is not None and due_ns <= now_ns:
            self._expire(due_ns)
        self._drive_irq()

    def _expire(self, due_ns: int) -> None:
        rx, tx = self.state.rx, self.state.tx
        rx.expire(due_ns)
        if tx.empty_due_ns is not None and tx.empty_due_ns <= due_ns:
            tx.set_empty()
            self._raise_thre_interrupt()
        character = tx.shifted_out(due_ns)
        if character is not None:
            self._send(character, due_ns)
            self._shift(due_ns)

    def _shift(self, now_ns: int) -> None:
        """Starts the next character, if the line is idle and there is one."""
        state = self.state
        was_empty = state.tx.empty
        state.tx.shift(now_ns, self._character_ns(), bit_ns(state.divisor), self._fifo)
        if state.tx.empty and not was_empty:
            self._raise_thre_interrupt()
