"""The 8042 keyboard controller of a PC/AT, with nothing plugged in.

Two ports, with one byte between the chip and the processor in each direction. A byte in the output
buffer (OBF) stays until it is read; what the processor writes is taken at once, so the input buffer
is never full. The chip's output port drives the processor's reset and the A20 gate.

Here is what firmware and boot code need of it: self-test, A20 and reset. No keyboard answers: as
on a PC without one, a byte sent to it times out. The A20 gate reads back what was written and does
nothing more, because address line 20 is always the processor's own here.

Source: IBM PC/AT Technical Reference, "Keyboard Controller"; auxiliary device: IBM PS/2 Hardware
Interface Technical Reference, "Keyboard and Auxiliary Device Controller".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

from devserver.models.device import (
    Access,
    Device,
    Lease,
    Region,
    Register,
    Signal,
    StateError,
)


class Status(IntFlag):
    """The status register, read at 64h."""

    OBF = 0x01  # output buffer full
    SYS = 0x04  # system flag: the self-test was passed, or as the command byte has it
    A2 = 0x08  # the last write was a command
    UNLOCKED = 0x10  # the keyboard's key switch is open
    TIMEOUT = 0x40


class CommandByte(IntFlag):
    """What command 60h sets."""

    IRQ = 0x01  # an interrupt when the output buffer fills
    SYS = 0x04
    KEYBOARD_OFF = 0x10
    AUX_OFF = 0x20


class OutputPort(IntFlag):
    """The chip's output port, as commands D0h and D1h see it."""

    NOT_RESET = 0x01  # low: the processor is reset
    A20_GATE = 0x02
    OBF_IRQ = 0x10
    CLOCK = 0x40
    DATA = 0x80


class Command(IntEnum):
    """What the processor may write to 64h."""

    READ_COMMAND_BYTE = 0x20
    WRITE_COMMAND_BYTE = 0x60
    AUX_OFF = 0xA7
    AUX_ON = 0xA8
    AUX_TEST = 0xA9
    SELF_TEST = 0xAA
    INTERFACE_TEST = 0xAB
    KEYBOARD_OFF = 0xAD
    KEYBOARD_ON = 0xAE
    READ_INPUT_PORT = 0xC0
    READ_OUTPUT_PORT = 0xD0
    WRITE_OUTPUT_PORT = 0xD1
    WRITE_KEYBOARD_BUFFER = 0xD2
    WRITE_AUX_BUFFER = 0xD3
    WRITE_AUX_DEVICE = 0xD4
    A20_OFF = 0xDD
    A20_ON = 0xDF
    READ_TEST_INPUTS = 0xE0
    PULSE = 0xF0  # to FFh: a low bit 0-3 pulses that line of the output port


#: Commands that want a byte at 60h.
_WITH_DATA = (
    Command.WRITE_COMMAND_BYTE,
    Command.WRITE_OUTPUT_PORT,
    Command.WRITE_KEYBOARD_BUFFER,
    Command.WRITE_AUX_BUFFER,
    Command.WRITE_AUX_DEVICE,
)
#: Commands that do no more than switch bits of the command byte: off, on.
_SWITCHES: Mapping[int, tuple[int, int]] = {
    Command.AUX_OFF: (0, int(CommandByte.AUX_OFF)),
    Command.AUX_ON: (int(CommandByte.AUX_OFF), 0),
    Command.KEYBOARD_OFF: (0, int(CommandByte.KEYBOARD_OFF)),
    Command.KEYBOARD_ON: (int(CommandByte.KEYBOARD_OFF), 0),
}
SELF_TEST_PASSED = 0x55
INTERFACE_TEST_PASSED = 0x00
#: What the processor finds when a byte to the keyboard timed out.
NO_ANSWER = 0xFE
#: Key switch open, colour display, no manufacturing jumper, the second 256 KiB fitted.
INPUT_PORT = 0xB0

_RESET_OUTPUT = int(OutputPort.NOT_RESET | OutputPort.A20_GATE | OutputPort.CLOCK | OutputPort.DATA)
# Inverted, a member of an IntFlag loses the bits that have no name.
_A20_GATE = int(OutputPort.A20_GATE)
_OBF_IRQ = int(OutputPort.OBF_IRQ)
_ANSWERED = int(Status.OBF | Status.TIMEOUT)
_SOURCE = 'PC/AT Technical Reference, "Keyboard Controller"'


class I8042(Device):
    """The controller's ports 60h ("data") and 64h ("command"), its interrupt on "irq".

    A low bit 0 of the output port, written or pulsed (command FEh), raises :attr:`Signal.RESET`.
    """

    kind = "i8042"
    outputs = ("irq",)
    leases_move_with_time = False
    regions = (
        Region(
            name="data",
            size=1,
            registers=(Register(offset=0, name="DATA", source=_SOURCE),),
        ),
        Region(
            name="command",
            size=1,
            registers=(
                Register(
                    offset=0,
                    name="STATUS",
                    access=Access.RO,
                    reset=int(Status.A2 | Status.UNLOCKED),
                    leased=True,
                    source=f"{_SOURCE}, status register",
                ),
                Register(
                    offset=0,
                    name="COMMAND",
                    access=Access.WO,
                    source=f"{_SOURCE}, controller commands",
                ),
            ),
        ),
    )

    @dataclass
    class State:
        """``pending``: the command that waits for its byte at 60h, or 0."""

        status: int = int(Status.A2 | Status.UNLOCKED)
        command_byte: int = 0
        output_port: int = _RESET_OUTPUT
        buffer: int = 0
        pending: int = 0

    state: State

    def load(self, snapshot: Mapping[str, Any]) -> None:
        before = self.state
        super().load(snapshot)
        for name, value in vars(self.state).items():
            if not 0 <= value <= 0xFF:
                self.state = before
                raise StateError(f"{self.kind}: {name} is {value}, which is no byte")

    # -- the ports --------------------------------------------------------------------------------

    def read_data(self, now_ns: int) -> int:
        self.state.status &= ~_ANSWERED
        self._drive_irq()
        return self.state.buffer

    def write_data(self, value: int, now_ns: int) -> None:
        self.state.status &= ~Status.A2
        command, self.state.pending = self.state.pending, 0
        if command == Command.WRITE_COMMAND_BYTE:
            self._set_command_byte(value)
        elif command == Command.WRITE_OUTPUT_PORT:
            self._set_output_port(value)
        elif command in (Command.WRITE_KEYBOARD_BUFFER, Command.WRITE_AUX_BUFFER):
            self._answer(value)
        else:
            self._answer(NO_ANSWER)  # for the keyboard, or with D4h for the auxiliary device
            self.state.status |= Status.TIMEOUT

    def read_status(self, now_ns: int) -> int:
        return self.state.status

    def lease_status(self, now_ns: int) -> Lease:
        return Lease(value=self.state.status)

    def write_command(self, value: int, now_ns: int) -> None:
        state = self.state
        state.status |= Status.A2
        state.pending = value if value in _WITH_DATA else 0
        answer = self._answer_to(value)
        if answer is not None:
            self._answer(answer)
        elif value in _SWITCHES:
            clear, put = _SWITCHES[value]
            self._set_command_byte(state.command_byte & ~clear | put)
        elif value == Command.A20_OFF:
            self._set_output_port(state.output_port & ~_A20_GATE)
        elif value == Command.A20_ON:
            self._set_output_port(state.output_port | _A20_GATE)
        elif value >= Command.PULSE and not value & OutputPort.NOT_RESET:
            self.signal(Signal.RESET)

    def _answer_to(self, command: int) -> int | None:
        """The byte that a command puts into the output buffer, for those that do."""
        state = self.state
        match command:
            case Command.READ_COMMAND_BYTE:
                return state.command_byte
            case Command.SELF_TEST:
                self._set_command_byte(state.command_byte | CommandByte.SYS)
                return SELF_TEST_PASSED
            case Command.INTERFACE_TEST | Command.AUX_TEST:
                return INTERFACE_TEST_PASSED
            case Command.READ_INPUT_PORT:
                return INPUT_PORT
            case Command.READ_OUTPUT_PORT:
                full = state.status & Status.OBF and state.command_byte & CommandByte.IRQ
                return state.output_port | (OutputPort.OBF_IRQ if full else 0)
            case Command.READ_TEST_INPUTS:
                return 0
        return None

    # -- inside -----------------------------------------------------------------------------------

    def _answer(self, value: int) -> None:
        self.state.buffer = value
        self.state.status = self.state.status & ~Status.TIMEOUT | Status.OBF
        self._drive_irq()

    def _set_command_byte(self, value: int) -> None:
        self.state.command_byte = value
        system = Status.SYS if value & CommandByte.SYS else 0
        self.state.status = self.state.status & ~Status.SYS | system
        self._drive_irq()

    def _set_output_port(self, value: int) -> None:
        self.state.output_port = (value | int(OutputPort.NOT_RESET)) & ~_OBF_IRQ
        if not value & OutputPort.NOT_RESET:
            self.signal(Signal.RESET)

    def _drive_irq(self) -> None:
        full = self.state.status & Status.OBF
        self.set_line("irq", bool(full and self.state.command_byte & CommandByte.IRQ))
