"""MC146818 real-time clock and the PC's CMOS memory: two ports, index and data.

Source: Motorola MC146818/MC146818A data sheet; where it leaves things to the board, the IBM PC/AT
Technical Reference, "Real-time Clock/CMOS RAM Information".

Everything derives from the chip's divider chain, which counts 32.768 kHz and is a function of VM
time: the model does no work until somebody looks or an enabled interrupt is due::

    chain time  ...|<------------------------- 1 s ------------------------->|...
    UIP         ___________________________________________________|^^^^^^^^^|____
                                                             244 us before |
    time        === s =====================================================X= s+1
    UF, AF      ___________________________________________________________|^^^^^
                                                                set until C is read
    periodic    ______|_______________|_______________|_______________|___________
                                                       half a period before UIP

The clock is taken to update in no time at the end of UIP (the chip takes 1984 us more, with the
time registers undefined and UIP set).

What the data sheet leaves open, and what this model does:

- A time register that holds no legal value counts on from the nearest one when a carry reaches
  it; registers that no carry reaches keep what was written.
- The century (32h) takes part in the calendar, so 2100 is no leap year.
- The PC has a 32.768 kHz crystal whatever DV says: each of the three operating time bases counts
  it. The combinations for factory test hold the chain, as the two for divider reset do.
- A power-on reset finds the battery flat: time from the context's epoch, other memory zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devserver.models.device import (
    Device,
    Lease,
    OptionError,
    StateError,
    Term,
)
from devserver.models.mc146818.calendar import UNIX_EPOCH, ClockFace, Cmos, Format
from devserver.models.mc146818.registers import (
    A_RESET,
    B_RESET,
    DIVIDER_32KHZ,
    IO,
    RegisterA,
    RegisterB,
    RegisterC,
    RegisterD,
)

SIZE_BYTES = 128
SECOND_NS = 1_000_000_000

#: One tick of 32.768 kHz is 1953125/64 ns, exactly.
_TICK_NUMERATOR_NS, _TICK_DENOMINATOR = 1_953_125, 64
#: UIP is set for 8 ticks (244.14 us) before an update: data sheet, table "update cycle times".
_UIP_TICKS = 8
UIP_NS = _UIP_TICKS * _TICK_NUMERATOR_NS // _TICK_DENOMINATOR


_DIVIDER_MASK = RegisterA.DV2 | RegisterA.DV1 | RegisterA.DV0
_RATE_MASK = 0x0F

#: The bank of registers that the data port shows, where it is not "nvram".
_BANKS: dict[int, str] = {
    **dict.fromkeys(range(Cmos.SECONDS, Cmos.REGISTER_A), "clock"),
    Cmos.REGISTER_A: "A",
    Cmos.REGISTER_B: "B",
    Cmos.REGISTER_C: "C",
    Cmos.REGISTER_D: "D",
    Cmos.CENTURY: "clock",
}

_ALARM = (Cmos.SECONDS_ALARM, Cmos.MINUTES_ALARM, Cmos.HOURS_ALARM)

#: Selecting what is selected already leaves a lease of the data port as it is.
_INDEX_LANE = 1 << 0


def _lease(value: int, *terms: Term, until_ns: int = 0) -> Lease:
    return Lease(value=value, terms=terms, until_ns=until_ns, steady=_INDEX_LANE)


def period_ticks(rate: int) -> int:
    """The periodic interrupt's period in ticks of 32.768 kHz for RS3-RS0; 0 is none.

    Rates 1 and 2 repeat 8 and 9 (256 and 128 Hz): data sheet, "periodic interrupt rate".
    """
    if rate == 0:
        return 0
    return 1 << (rate + 6 if rate <= 2 else rate - 1)


class Mc146818(Device):
    """The clock and CMOS memory of a PC.

    Option ``memory_bytes``: the machine's memory below 4 GiB; when not 0, the bytes that tell a
    BIOS its size are filled in.
    """

    kind = "mc146818"
    outputs = ("irq",)
    leases_move_with_time = False
    regions = (IO,)

    @dataclass
    class State:
        """``phase_ns`` is chain time less VM time; ``chain_ns`` the chain time that the registers
        and flags stand at. While the chain is held in reset both have no meaning."""

        index: int = 0
        register_a: int = A_RESET
        register_b: int = B_RESET
        register_c: int = 0
        memory: bytearray = field(default_factory=lambda: bytearray(SIZE_BYTES))
        phase_ns: int = 0
        chain_ns: int = 0
        fell_back: bool = False

    @dataclass(frozen=True)
    class Options:
        """What a machine file may say of this device."""

        memory_bytes: int = 0

        def __post_init__(self) -> None:
            if self.memory_bytes < 0:
                raise OptionError(f"memory_bytes is {self.memory_bytes}; it can't be negative")

    state: State
    options: Options
    _deadline_ns: int | None

    def started(self) -> None:
        seconds, self.state.phase_ns = divmod(self.context.epoch_ns, SECOND_NS)
        self.state.chain_ns = self.state.phase_ns
        self._face().show(UNIX_EPOCH.after(seconds))
        self._describe_memory()
        self._plan()

    def load(self, snapshot: Mapping[str, Any]) -> None:
        before = self.state
        super().load(snapshot)
        loaded = self.state
        if len(loaded.memory) != SIZE_BYTES or not 0 <= loaded.index < SIZE_BYTES:
            self.state = before
            raise StateError(f"{self.kind}: memory must have {SIZE_BYTES} bytes, index below that")
        self._plan()

    def bank(self) -> str:
        return _BANKS.get(self.state.index, "nvram")

    def deadline_ns(self) -> int | None:
        return self._deadline_ns

    def advance(self, now_ns: int) -> None:
        self._catch_up(now_ns)
        self._plan()

    # -- registers ------------------------------------------------------------------------------

    def write_index(self, value: int, now_ns: int) -> None:
        self.state.index = value & 0x7F  # bit 7 masks the NMI, which is no part of this chip

    def read_nvram(self, now_ns: int) -> int:
        return self.state.memory[self.state.index]

    def write_nvram(self, value: int, now_ns: int) -> None:
        self.state.memory[self.state.index] = value

    def read_clock(self, now_ns: int) -> int:
        self._catch_up(now_ns)
        return self.state.memory[self.state.index]

    def write_clock(self, value: int, now_ns: int) -> None:
        self._catch_up(now_ns)
        if self.state.index == Cmos.SECONDS:
            value &= 0x7F  # bit 7 of the seconds is read-only
        if self.state.index == Cmos.HOURS:
            self.state.fell_back = False
        self.state.memory[self.state.index] = value
        self._plan()

    def read_register_a(self, now_ns: int) -> int:
        return self.state.register_a | (RegisterA.UIP if self._update_is_near(now_ns) else 0)

    def write_register_a(self, value: int, now_ns: int) -> None:
        self._catch_up(now_ns)
        was_running = self._running
        self.state.register_a = int(value & ~RegisterA.UIP)
        if self._running and not was_running:
            # the first update comes half a second after the divider is released
            self.state.chain_ns = SECOND_NS // 2
            self.state.phase_ns = self.state.chain_ns - now_ns
        self._plan()

    def read_register_b(self, now_ns: int) -> int:
        return self.state.register_b

    def write_register_b(self, value: int, now_ns: int) -> None:
        self._catch_up(now_ns)
        if value & RegisterB.SET:
            value &= ~RegisterB.UIE  # SET going high clears UIE
        self.state.register_b = int(value)
        self._show_interrupt()

    def read_register_c(self, now_ns: int) -> int:
        self._catch_up(now_ns)
        flags = self.state.register_c | (RegisterC.IRQF if self._interrupting else 0)
        self.state.register_c = 0
        self._show_interrupt()
        return flags

    def read_register_d(self, now_ns: int) -> int:
        return int(RegisterD.VRT)

    # -- leases: a read of C clears it, all others change nothing --------------------------------

    def lease_nvram(self, now_ns: int) -> Lease:
        return _lease(self.state.memory[self.state.index])

    def lease_register_b(self, now_ns: int) -> Lease:
        return _lease(self.state.register_b)

    def lease_register_d(self, now_ns: int) -> Lease:
        return _lease(int(RegisterD.VRT))

    def lease_clock(self, now_ns: int) -> Lease:
        """The byte as it stands; that of a running clock until the next update."""
        byte = self._shown_at(now_ns)[self.state.index]
        if self.state.index in _ALARM or not self._updating:
            return _lease(byte)
        return _lease(byte, until_ns=self._second_ends_ns(now_ns))

    def lease_register_a(self, now_ns: int) -> Lease:
        """UIP comes and goes each second: the second half of a period, as a lease has it."""
        if not self._updating:
            return _lease(self.state.register_a)
        begin_ns = -self.state.phase_ns % SECOND_NS  # of a second: the earliest since VM time 0
        period_ns, until_ns = SECOND_NS, 0
        length_ns = SECOND_NS - UIP_NS
        if now_ns < begin_ns:  # the second in which the VM started
            period_ns, until_ns = 0, begin_ns
            begin_ns, length_ns = 0, max(0, begin_ns - UIP_NS)
        uip = Term(
            num=1,
            den=1,
            origin=begin_ns,
            period=period_ns,
            length=length_ns,
            start=0,
            start2=int(RegisterA.UIP),
        )
        return _lease(self.state.register_a, uip, until_ns=until_ns)

    def _second_ends_ns(self, now_ns: int) -> int:
        return now_ns + SECOND_NS - (now_ns + self.state.phase_ns) % SECOND_NS

    # -- the divider chain ----------------------------------------------------------------------

    @property
    def _running(self) -> bool:
        return self.state.register_a & _DIVIDER_MASK <= DIVIDER_32KHZ

    @property
    def _updating(self) -> bool:
        return self._running and not self.state.register_b & RegisterB.SET

    @property
    def _interrupting(self) -> bool:
        return bool(self.state.register_c & self.state.register_b)

    def _update_is_near(self, now_ns: int) -> bool:
        return self._updating and self._second_ends_ns(now_ns) - now_ns <= UIP_NS

    def _catch_up(self, now_ns: int) -> None:
        """Brings time and flags to ``now_ns``."""
        state = self.state
        chain_ns = now_ns + state.phase_ns
        if not self._running or chain_ns <= state.chain_ns:
            return
        flags = 0
        if self._periods(chain_ns) != self._periods(state.chain_ns):
            flags |= RegisterC.PF
        updates = chain_ns // SECOND_NS - state.chain_ns // SECOND_NS
        state.chain_ns = chain_ns
        if updates and self._updating:
            flags |= RegisterC.UF
            if self._update(updates):
                flags |= RegisterC.AF
        if flags & ~state.register_c:
            state.register_c |= int(flags)
            self._show_interrupt()

    def _periods(self, chain_ns: int) -> int:
        """How many periods of the selected rate have ended by a chain time; 0 at no rate."""
        period = period_ticks(self.state.register_a & _RATE_MASK)
        if not period:
            return 0
        ticks = chain_ns * _TICK_DENOMINATOR // _TICK_NUMERATOR_NS
        return (ticks + _UIP_TICKS + period // 2) // period

    def _next_period_ns(self) -> int | None:
        """The chain time at which the running period ends."""
        period = period_ticks(self.state.register_a & _RATE_MASK)
        if not period:
            return None
        # A period ends half a period before UIP is set: data sheet, figure "update-ended and
        # periodic interrupt relationships".
        tick = (self._periods(self.state.chain_ns) + 1) * period - period // 2 - _UIP_TICKS
        return -(-tick * _TICK_NUMERATOR_NS // _TICK_DENOMINATOR)

    # -- the interrupt --------------------------------------------------------------------------

    def _show_interrupt(self) -> None:
        self.set_line("irq", self._interrupting)
        self._plan()

    def _plan(self) -> None:
        """Works out the deadline: the next event that would raise the interrupt line."""
        self._deadline_ns = None
        if self._running and not self._interrupting:
            due = [at_ns for at_ns in self._enabled_events_ns() if at_ns is not None]
            if due:
                self._deadline_ns = min(due) - self.state.phase_ns

    def _enabled_events_ns(self) -> list[int | None]:
        """Chain times of the next event of each enabled kind."""
        enabled = self.state.register_b
        events: list[int | None] = []
        if enabled & RegisterB.PIE:
            events.append(self._next_period_ns())
        if self._updating and enabled & (RegisterB.UIE | RegisterB.AIE):
            second = self.state.chain_ns // SECOND_NS
            if enabled & RegisterB.UIE:
                events.append((second + 1) * SECOND_NS)
            elif (wait := self._wait_for_alarm()) is not None:
                events.append((second + wait) * SECOND_NS)
        return events

    def _wait_for_alarm(self) -> int | None:
        return self._face().updates_until_alarm(bool(self.state.register_b & RegisterB.DSE))

    # -- time and calendar ----------------------------------------------------------------------

    def _face(self, memory: bytearray | None = None) -> ClockFace:
        enabled = self.state.register_b
        form = Format(
            binary=bool(enabled & RegisterB.DM), hours24=bool(enabled & RegisterB.HOURS24)
        )
        return ClockFace(self.state.memory if memory is None else memory, form)

    def _update(self, updates: int) -> bool:
        """Runs that many update cycles; returns whether the alarm matched after one of them."""
        matched, self.state.fell_back = self._run(self._face(), updates)
        return matched

    def _run(self, face: ClockFace, updates: int) -> tuple[bool, bool]:
        if self.state.register_b & RegisterB.DSE:
            return face.run_daylight_saving(updates, self.state.fell_back)
        return face.run(updates), self.state.fell_back

    def _shown_at(self, now_ns: int) -> bytearray:
        """The memory as it will be at a VM time, which is not before that of the registers."""
        memory = bytearray(self.state.memory)
        chain_ns = now_ns + self.state.phase_ns
        updates = chain_ns // SECOND_NS - self.state.chain_ns // SECOND_NS
        if self._updating and updates > 0:
            self._run(self._face(memory), updates)
        return memory

    def _describe_memory(self) -> None:
        """Tells a BIOS the size of memory, where the PC/AT and its successors keep it."""
        total = self.options.memory_bytes
        if not total:
            return
        kib, mib = 1 << 10, 1 << 20
        above_1m_kib = max(0, total - mib) // kib
        for place, amount in (
            (Cmos.BASE_MEMORY, min(total // kib, 640)),
            (Cmos.EXTENDED_MEMORY, above_1m_kib),
            (Cmos.EXTENDED_MEMORY_FOUND, above_1m_kib),
            (Cmos.MEMORY_ABOVE_16M, max(0, total - 16 * mib) // (64 * kib)),
        ):
            self.state.memory[place : place + 2] = min(amount, 0xFFFF).to_bytes(2, "little")
