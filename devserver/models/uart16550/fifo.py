"""The two halves of a 16550 UART, receiver and transmitter: FIFOs, shift register and timers.

Both are parts of the device's state; they drive no lines and emit nothing. In 16450 mode (FIFOs
disabled) the same buffers serve as the one-character holding registers.

Source: National Semiconductor PC16550D datasheet, sections 8.4 (LSR) and 8.11 (FIFO interrupt
mode operation).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from devserver.models.uart16550.registers import FIFO_SIZE, Lsr

TIMEOUT_CHARACTERS = 4


@dataclass
class Receiver:
    """Received characters, each with its errors, and the character timeout.

    ``errors`` runs parallel to ``data`` and holds the :class:`Lsr` bits of each character. They
    move on to ``line_status`` when the character reaches the top of the FIFO, and stay there
    until the guest reads LSR.
    """

    data: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    holding: int = 0  # RBR of the 16450 mode: keeps its value when it is read
    line_status: int = 0  # OE, PE, FE, BI
    timed_out: bool = False
    timeout_due_ns: int | None = None
    next_due_ns: int | None = None  # paced: the line is busy with a character until then

    def room(self, fifo: bool) -> int:
        """How many characters can come in without an overrun."""
        return (FIFO_SIZE if fifo else 1) - len(self.data)

    def put(self, character: int, errors: int, fifo: bool) -> None:
        """A character comes in, with the :class:`Lsr` bits of its errors.

        Without room it is an overrun: it is lost in FIFO mode, replaces the former in 16450 mode.
        """
        if not self.room(fifo):
            self.line_status |= Lsr.OE
            if fifo:
                return
            self.data.clear()
            self.errors.clear()
        if not fifo:
            self.holding = character
        self.data.append(character)
        self.errors.append(errors)
        self._show_errors()

    def take(self, fifo: bool) -> int:
        """The guest reads RBR. An empty FIFO reads 0; an empty holding register its last value."""
        character = 0 if fifo else self.holding
        if self.data:
            character = self.data.pop(0)
            self.errors.pop(0)
            self._show_errors()
        return character

    def clear(self) -> None:
        """The guest resets the FIFO or changes its mode. Errors already shown stay for LSR."""
        self.data.clear()
        self.errors.clear()
        self.timed_out = False
        self.timeout_due_ns = None

    def status(self, fifo: bool) -> int:
        """This half's bits of LSR. Reading LSR also calls :meth:`clear_errors`."""
        value = self.line_status | (Lsr.DR if self.data else 0)
        if fifo and (self.line_status & Lsr.CHARACTER_ERRORS or any(self.errors)):
            value |= Lsr.RCVR_FIFO_ERROR
        return value

    def clear_errors(self) -> None:
        """The guest has read LSR."""
        self.line_status = 0

    def restart_timeout(self, now_ns: int, character_ns: int) -> None:
        """A character came in or was read, in FIFO mode: the wait for the timeout begins anew.

        A timeout that has occurred stays until the guest reads a character.
        """
        if self.data and not self.timed_out:
            self.timeout_due_ns = now_ns + TIMEOUT_CHARACTERS * character_ns
        else:
            self.timeout_due_ns = None

    def expire(self, now_ns: int) -> None:
        """Lets happen what is due at ``now_ns``."""
        if self.timeout_due_ns is not None and self.timeout_due_ns <= now_ns:
            self.timeout_due_ns = None
            self.timed_out = True
        if self.next_due_ns is not None and self.next_due_ns <= now_ns:
            self.next_due_ns = None

    def _show_errors(self) -> None:
        if self.errors and self.errors[0]:
            self.line_status |= self.errors[0]
            self.errors[0] = 0


@dataclass
class Transmitter:
    """Characters to be sent and the shift register, for a line that takes its time.

    In FIFO mode THRE comes late when the FIFO never held two characters since it last came: one
    character time less the last stop bit after the last character went to the shift register. A
    guest that is slow to write is so spared an interrupt for each character (8.11).
    """

    held: bytearray = field(default_factory=bytearray)
    shifting: int | None = None
    shift_due_ns: int | None = None
    empty: bool = True  # LSR THRE
    empty_due_ns: int | None = None
    held_two: bool = False  # at the same time, since THRE

    @property
    def status(self) -> int:
        """This half's bits of LSR."""
        if not self.empty:
            return 0
        return Lsr.THRE if self.shifting is not None else Lsr.THRE | Lsr.TEMT

    def put(self, character: int, fifo: bool) -> None:
        """The guest writes THR. Where there is no room, the oldest character is overwritten."""
        if len(self.held) >= (FIFO_SIZE if fifo else 1):
            del self.held[0]
        self.held.append(character)
        self.held_two = self.held_two or len(self.held) > 1
        self.empty = False
        self.empty_due_ns = None

    def shift(self, now_ns: int, character_ns: int, bit_ns: int, fifo: bool) -> None:
        """Moves the next character to the shift register, if there is one and that is idle."""
        if self.shifting is not None or not self.held:
            return
        self.shifting = self.held.pop(0)
        self.shift_due_ns = now_ns + character_ns
        if self.held:
            return
        if fifo and not self.held_two:
            self.empty_due_ns = self.shift_due_ns - bit_ns
        else:
            self.set_empty()

    def shifted_out(self, now_ns: int) -> int | None:
        """The character that has left the shift register by ``now_ns``, if one has."""
        if self.shift_due_ns is None or self.shift_due_ns > now_ns:
            return None
        character, self.shifting, self.shift_due_ns = self.shifting, None, None
        return character

    def set_empty(self) -> None:
        """THRE comes."""
        self.empty = True
        self.empty_due_ns = None
        self.held_two = False

    def clear(self) -> None:
        """The guest resets the FIFO or changes its mode; the shift register goes on."""
        self.held.clear()
        self.set_empty()
