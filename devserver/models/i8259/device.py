"""A PC's pair of Intel 8259A interrupt controllers: a master, and a slave on its input IR2.

Sources: Intel 8259A data sheet (order number 231468); the trigger registers as in the Intel
82371AB (PIIX4).

::

    lines 0, 1, 3 to 7 ──> master ──> intr            acknowledge: the processor's INTA cycle
                             ^ IR2
    lines 8 to 15 ───────> slave

What the data sheet leaves open, and what this model does:

- MCS-80/85 mode (ICW4 without uPM, or none) works as 8086 mode: a PC has no such processor.
- Before any initialization the chips work, with vectors from 0 on and nothing masked; KVM's and
  QEMU's do so too. In the middle of one a chip asks for nothing, but sees edges.
- The ELCRs make single lines level-triggered; LTIM makes all of a chip's inputs so.
- The buffered bits of ICW4 are kept and change nothing: which chip is the master is wired.
- Where the master leaves the vector to a slave that isn't there, it reads as FFh.
- ICW1 clears the ISR.

And where it departs from it:

- A request by edge outlives the line: by the data sheet the line must stay high until the
  acknowledge, or there is the default IR7 instead. On a board an interrupt is taken back within
  nanoseconds of its acknowledge; here the two may cross on a network, and a guest would see the
  default IR7 again and again. KVM and QEMU keep an edge for guests that meet slow hosts.
- A processor that acknowledges what was taken back meanwhile gets the default IR7: the slave's
  if it was the slave that took it back (the master's IR2 is then in service, and needs its EOI),
  else the master's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partialmethod
from typing import Any

from devserver.models.device import Device, StateError
from devserver.models.i8259.chip import Chip, Master, Slave
from devserver.models.i8259.registers import (
    ALL,
    BUS,
    CASCADE,
    ELCR,
    ELCR1_WRITABLE,
    ELCR2_WRITABLE,
    LEVELS,
    LINES,
    MASTER,
    SLAVE,
)


class I8259(Device):
    """The two interrupt controllers of a PC, with edge or level triggering for each line.

    ``intr`` is high while the processor is asked to take an interrupt. Region ``bus`` is what the
    processor and the devices do with the pair other than by its ports: a read of ``ACKNOWLEDGE`` is
    the interrupt acknowledge cycle and gives the vector, bit 0 of a write of ``IRQn`` is the level
    of line n (line 2, the cascade, can't be driven).

    A request by edge stands until the acknowledge, as with KVM's and QEMU's controllers. (By the
    data sheet it is gone if the line falls before, and the acknowledge gives the default IR7.)
    MCS-80/85 mode works as 8086 mode does.
    """

    kind = "i8259"
    outputs = ("intr",)
    leases_move_with_time = False
    regions = (MASTER, SLAVE, ELCR, BUS)

    @dataclass
    class State:
        """``withdrawn``: the processor was asked for the slave, which took its request back; since
        then there was no acknowledge, no other request and no write to the master."""

        master: Master = field(default_factory=Master)
        slave: Slave = field(default_factory=Slave)
        withdrawn: bool = False

    state: State

    def load(self, snapshot: Mapping[str, Any]) -> None:
        before = self.state
        super().load(snapshot)
        if wrong := self._damage():
            self.state = before
            raise StateError(f"{self.kind}: {wrong}")

    # -- pins -----------------------------------------------------------------------------------

    def line(self, irq: int, level: bool) -> None:
        """Drives interrupt line ``irq``, 0 to 15. Line 2 is the slave's, and stays as it is."""
        if not 0 <= irq < LINES:
            raise ValueError(f"there is no interrupt line {irq}; they are 0 to {LINES - 1}")
        if irq == CASCADE:
            return
        chip = self.state.master if irq < LEVELS else self.state.slave
        chip.drive(irq % LEVELS, level)
        self._settle()

    def acknowledge(self) -> int:
        """The processor's interrupt acknowledge cycle, both INTA pulses; returns the vector."""
        master = self.state.master
        level = master.begin_acknowledge()
        if level is None and self.state.withdrawn:
            level = CASCADE  # the request went away when the master had chosen it
            master.serve(level)
        vector = master.vector(level)
        answering = LEVELS - 1 if level is None else level
        if master.slave_inputs & 1 << answering:
            vector = self._slave_answers(answering)
        master.end_acknowledge(level)
        self.state.withdrawn = False
        self._settle()
        return vector

    def _slave_answers(self, level: int) -> int:
        slave = self.state.slave
        if not slave.answers_at(level):
            return ALL  # nobody drives the bus
        taken = slave.begin_acknowledge()
        self._cascade()  # the slave's INT goes low here, even if AEOI makes it high again
        slave.end_acknowledge(taken)
        return slave.vector(taken)

    # -- ports ----------------------------------------------------------------------------------

    def read_master_command(self, now_ns: int) -> int:
        return self._read(self.state.master, self.state.master.status())

    def read_master_data(self, now_ns: int) -> int:
        return self._read(self.state.master, self.state.master.imr)

    def read_slave_command(self, now_ns: int) -> int:
        return self._read(self.state.slave, self.state.slave.status())

    def read_slave_data(self, now_ns: int) -> int:
        return self._read(self.state.slave, self.state.slave.imr)

    def write_master_command(self, value: int, now_ns: int) -> None:
        self.state.withdrawn = False
        self.state.master.write_command(value)
        self._settle()

    def write_master_data(self, value: int, now_ns: int) -> None:
        self.state.withdrawn = False
        self.state.master.write_data(value)
        self._settle()

    def write_slave_command(self, value: int, now_ns: int) -> None:
        self.state.slave.write_command(value)
        self._settle()

    def write_slave_data(self, value: int, now_ns: int) -> None:
        self.state.slave.write_data(value)
        self._settle()

    def read_elcr1(self, now_ns: int) -> int:
        return self.state.master.elcr

    def write_elcr1(self, value: int, now_ns: int) -> None:
        self.state.master.choose_triggers(value & ELCR1_WRITABLE)
        self._settle()

    def read_elcr2(self, now_ns: int) -> int:
        return self.state.slave.elcr

    def write_elcr2(self, value: int, now_ns: int) -> None:
        self.state.slave.choose_triggers(value & ELCR2_WRITABLE)
        self._settle()

    def read_acknowledge(self, now_ns: int) -> int:
        return self.acknowledge()

    def _write_irq(self, irq: int, value: int, now_ns: int) -> None:
        self.line(irq, bool(value & 1))

    def _read(self, chip: Chip, value: int) -> int:
        """A read of either port: the poll word if one was asked for, else ``value``."""
        if chip.poll is None:
            return value
        word = chip.poll
        level = chip.begin_poll()
        self._cascade()
        chip.end_acknowledge(level)
        self._settle()
        return word

    # -- inner workings -------------------------------------------------------------------------

    def _cascade(self) -> bool:
        """Brings the slave's INT to the master's IR2; returns the level of the master's INT."""
        master = self.state.master
        for_slave = master.request() == CASCADE and bool(master.slave_inputs & 1 << CASCADE)
        master.hear_slave(self.state.slave.request() is not None)
        asks = master.request() is not None
        self.state.withdrawn = not asks and (for_slave or self.state.withdrawn)
        return asks

    def _settle(self) -> None:
        """Brings both INT outputs to where they go, after any change."""
        self.set_line("intr", self._cascade())

    def _damage(self) -> str:
        """What no pair can hold, in words; empty if nothing."""
        state = self.state
        for name, chip, writable in (
            ("master", state.master, ELCR1_WRITABLE),
            ("slave", state.slave, ELCR2_WRITABLE),
        ):
            if wrong := chip.damage():
                return f"{name}: {wrong}"
            if chip.elcr & ~writable:
                return f"{name}: elcr is {chip.elcr:#x}; only {writable:#x} can be level-triggered"
        if bool(state.master.lines & 1 << CASCADE) != (state.slave.request() is not None):
            return "master: lines has IR2 at another level than the slave's INT"
        if state.withdrawn and state.master.request() is not None:
            return "withdrawn is True, with a request that stands"
        return ""


for _irq in range(LINES):
    setattr(I8259, f"write_irq{_irq}", partialmethod(I8259._write_irq, _irq))
