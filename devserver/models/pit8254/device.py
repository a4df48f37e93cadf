"""The 8254 programmable interval timer, with the PC/AT's system control port B beside it.

Counter 0 drives interrupt line 0, counter 1 paced the refresh of memory on the AT, and counter 2
drives the speaker and can be read back through port B. The counters are in ``pit_counter``, their
six modes in ``pit_modes``; here are the bus interface and the passing of time.

Sources: Intel 8254 datasheet; IBM PC/AT Technical Reference, "System Timers" and "System Board
I/O" (port 61h).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

from devserver.models.device import (
    Access,
    Device,
    Hold,
    Lease,
    Policy,
    Region,
    Register,
    StateError,
)
from devserver.models.pit8254.counter import LAST_NS, PitCounter, ReadWrite, pulse_ns, pulses_at
from devserver.models.pit8254.leases import Outlook, View, counter_lease, toggling

#: What counter 1 would make of its usual count: port B's refresh bit toggles each 15.0857 µs.
REFRESH_PULSES = 18
_REFRESHING = View((toggling(REFRESH_PULSES),))


class Lane(IntEnum):
    """The ports in the order in which a lease names them: both regions, end to end."""

    COUNTER0 = 0
    COUNTER1 = 1
    COUNTER2 = 2
    CONTROL = 3
    PORTB = 4


class Select(IntEnum):
    """The SC1, SC0 field of a control word."""

    COUNTER0 = 0
    COUNTER1 = 1
    COUNTER2 = 2
    READ_BACK = 3


class ReadBack(IntFlag):
    """The read-back command. The first two are active low: a zero latches."""

    NOT_COUNT = 0x20
    NOT_STATUS = 0x10
    CNT2 = 0x08
    CNT1 = 0x04
    CNT0 = 0x02


class PortB(IntFlag):
    """System control port B, 61h. Bits 6 and 7 (parity and channel checks) never come up."""

    TIMER2_GATE = 0x01
    SPEAKER_DATA = 0x02
    PARITY_CHECK_DISABLE = 0x04
    CHANNEL_CHECK_DISABLE = 0x08
    REFRESH = 0x10
    TIMER2_OUT = 0x20


_PORTB_WRITABLE = 0x0F
# Members of an IntFlag are slow to combine, and guests poll port B in their delay loops.
_REFRESH = int(PortB.REFRESH)
_TIMER2_OUT = int(PortB.TIMER2_OUT)
_READ_BACK_COUNTERS = (int(ReadBack.CNT0), int(ReadBack.CNT1), int(ReadBack.CNT2))

_COUNTER_SOURCE = (
    'Intel 8254 datasheet, "Write Operations" and "Read Operations"; a count starts to run at the '
    "first CLK pulse after the write"
)

# Every write carries the VM time of the guest's OUT, and is applied at that time however late it
# comes. Only an edge of OUT 0 happens by itself here, so only writes that move it can come too
# late: an interrupt of the old count may be raised before they arrive. The count of counter 0 is
# therefore waited for. It ends the programming, and the control word before it has been applied by
# then: no interrupt of the old count reaches the guest after its new one was taken. What moves
# the others shows in reads alone, and no read passes a write.
COUNTERS = Region(
    name="counters",
    size=4,
    registers=(
        Register(
            offset=Lane.COUNTER0,
            name="COUNTER0",
            policy=Policy.FINISH,
            leased=True,
            source=f"{_COUNTER_SOURCE}, and an interrupt of the old count comes before that",
        ),
        *(
            Register(
                offset=lane,
                name=lane.name,
                policy=Policy.POSTED,
                leased=True,
                source=_COUNTER_SOURCE,
            )
            for lane in (Lane.COUNTER1, Lane.COUNTER2)
        ),
        Register(
            offset=Lane.CONTROL,
            name="CONTROL",
            access=Access.WO,
            policy=Policy.POSTED,
            source='Intel 8254 datasheet, "Control Word Format", "Counter Latch Command" and '
            '"Read-Back Command"; a latch command holds the count of its own moment, a control '
            "word takes effect with the count that follows, and the port cannot be read",
        ),
    ),
)

PORTB = Region(
    name="portb",
    size=1,
    registers=(
        Register(
            offset=0,
            name="PORTB",
            policy=Policy.POSTED,
            leased=True,
            source='IBM PC/AT Technical Reference, "System Board I/O", port 61h; its gate bit '
            "starts measurements, at the moment of the write",
        ),
    ),
)


#: A guest can ask for a million interrupts a second, which no processor could take and which would
#: keep a server from serving others. So many edges of the line are made in each window of VM time
#: (20,000 interrupts a second, in the long run); one more stands for all further ones.
WINDOW_NS = 100_000_000
MAX_EDGES = 4000


#: Of a control word, the bits that make it the latch command of one counter.
_LATCH_MASK = 0xF0


def _bits(lanes: Iterable[Lane]) -> int:
    return sum(1 << lane for lane in lanes)


def _power_on() -> list[PitCounter]:
    # GATE of counters 0 and 1 is tied high; counter 2's is bit 0 of port B.
    return [PitCounter(gate=True), PitCounter(gate=True), PitCounter(gate=False)]


class Pit8254(Device):
    """An 8254 as a PC has it: ports 40h to 43h ("counters") and 61h ("portb"), OUT 0 on "irq".

    Everything is computed from VM time with whole numbers; a period that does not divide into
    nanoseconds does not drift. CLK pulse ``k`` falls at ``k * 17600 / 21`` ns.
    """

    kind = "pit8254"
    regions = (COUNTERS, PORTB)
    outputs = ("irq",)
    leases_move_with_time = False

    @dataclass
    class State:
        """``counters`` are the three of the chip, ``portb`` the writable bits of port B.

        ``window`` is the number of the window in which ``edges`` edges of the interrupt line
        were made one by one; ``owed`` says that further ones are to be made up for by one.
        """

        counters: list[PitCounter] = field(default_factory=_power_on)
        portb: int = 0
        window: int = 0
        edges: int = 0
        owed: bool = False

    state: State

    # -- time: the only thing that happens by itself is an edge of counter 0's OUT --------------

    def started(self) -> None:
        self._outlooks = [Outlook() for _ in self.state.counters]
        self._schedule()

    def load(self, snapshot: Mapping[str, Any]) -> None:
        before = self.state
        super().load(snapshot)
        if fault := self._fault():
            self.state = before
            raise StateError(f"{self.kind}: {fault}")
        self.started()

    def _fault(self) -> str | None:
        """What makes the state one that the chip is never in, or None."""
        state, found = self.state, len(self.state.counters)
        if found != len(Select) - 1:
            return f"snapshot has {found} counters, the chip has 3"
        for index, counter in enumerate(state.counters):
            if fault := counter.fault():
                return f"snapshot of counter {index}: {fault}"
        if not 0 <= state.portb <= _PORTB_WRITABLE:
            return f"snapshot of port B is {state.portb}, and not from 0 to {_PORTB_WRITABLE}"
        if not (0 <= state.window <= LAST_NS // WINDOW_NS and 0 <= state.edges <= MAX_EDGES):
            return f"snapshot has {state.edges} edges in window {state.window}"
        return None

    def deadline_ns(self) -> int | None:
        state = self.state
        if state.owed:
            return (state.window + 1) * WINDOW_NS
        if self._edge_ns is None or state.edges < MAX_EDGES:
            return self._edge_ns
        return max(self._edge_ns, (state.window + 1) * WINDOW_NS)

    def advance(self, now_ns: int) -> None:
        state, timer = self.state, self.state.counters[0]
        self._make_up_if_due(now_ns)
        while self._edge_ns is not None and self._edge_ns <= now_ns:
            if self._may_make_edge(self._edge_ns):
                timer.run_to(self._edge)
                self.set_line("irq", timer.out)
            else:
                timer.run_to(pulses_at(now_ns))
                state.owed = True
            self._schedule()
        self._make_up_if_due(now_ns)  # where the first edge passed over is seen that late

    def skip(self, now_ns: int) -> None:
        """Passes over all edges up to ``now_ns``; one stands for them."""
        if self._edge_ns is not None and self._edge_ns <= now_ns:
            self.state.counters[0].run_to(pulses_at(now_ns))
            self.state.owed = True
            self._schedule()
        self._make_up_if_due(now_ns)

    def _may_make_edge(self, at_ns: int) -> bool:
        """Counts an edge; False when its window has had as many as it may have."""
        state, window = self.state, at_ns // WINDOW_NS
        if window > state.window:
            state.window, state.edges = window, 0
        if state.edges >= MAX_EDGES:
            return False
        state.edges += 1
        return True

    def _make_up_if_due(self, now_ns: int) -> None:
        """One rising edge in place of all that were passed over; then the line is as OUT is."""
        state, timer = self.state, self.state.counters[0]
        if not state.owed or now_ns < (state.window + 1) * WINDOW_NS:
            return
        timer.run_to(pulses_at(now_ns))
        state.window, state.edges, state.owed = now_ns // WINDOW_NS, 2, False
        self.set_line("irq", False)
        self.set_line("irq", True)
        self.set_line("irq", timer.out)
        self._schedule()

    def _schedule(self) -> None:
        """Looks for the next edge of counter 0's OUT, the one thing that is kept outside State."""
        edge = self.state.counters[0].next_edge()
        self._edge = -1 if edge is None else edge
        self._edge_ns = None if edge is None else pulse_ns(edge)

    def _counter(self, index: int, now_ns: int) -> PitCounter:
        """A counter brought to VM time ``now_ns``, with no edge of counter 0 passed over."""
        if index == 0 and self._edge_ns is not None and self._edge_ns <= now_ns:
            self.advance(now_ns)
        counter = self.state.counters[index]
        counter.run_to(pulses_at(now_ns))
        return counter

    def _touched(self, index: int, now_ns: int) -> PitCounter:
        """A counter brought to VM time ``now_ns``, of which the guest changes the future."""
        self._outlooks[index].forget()
        return self._counter(index, now_ns)

    # -- leases: asking for them moves nothing, since a write of an earlier moment may follow ----

    def _seen(self, index: int, now_ns: int) -> PitCounter | None:
        """A copy of a counter, brought to ``now_ns``; None if it is beyond that."""
        counter = copy(self.state.counters[index])
        counter.run_to(pulses_at(now_ns))
        return counter if counter.clock == pulses_at(now_ns) else None

    def _lease_counter(self, lane: Lane, now_ns: int) -> Lease | None:
        counter = self._seen(lane, now_ns)
        if counter is None:
            return None
        foreign = {Lane.COUNTER0, Lane.COUNTER1, Lane.COUNTER2, Lane.PORTB} - {lane}
        if lane == Lane.COUNTER2:
            foreign.remove(Lane.PORTB)
        return counter_lease(
            counter,
            self._outlooks[lane],
            now_ns,
            unaffected=_bits(foreign),
            steady=_bits({Lane.PORTB}),
            latch=Hold(lane=Lane.CONTROL, mask=_LATCH_MASK, match=lane << 6),
        )

    def lease_counter0(self, now_ns: int) -> Lease | None:
        return self._lease_counter(Lane.COUNTER0, now_ns)

    def lease_counter1(self, now_ns: int) -> Lease | None:
        return self._lease_counter(Lane.COUNTER1, now_ns)

    def lease_counter2(self, now_ns: int) -> Lease | None:
        return self._lease_counter(Lane.COUNTER2, now_ns)

    def lease_portb(self, now_ns: int) -> Lease | None:
        counter = self._seen(2, now_ns)
        if counter is None:
            return None
        out = self._outlooks[2].out(counter, now_ns)
        _, refresh = _REFRESHING.parts(mask=_REFRESH, times=_REFRESH)
        value, terms = out.parts(mask=_TIMER2_OUT, times=_TIMER2_OUT)
        return Lease(
            value=self.state.portb | value,
            terms=refresh + terms,
            until_ns=out.until_ns,
            unaffected=_bits({Lane.COUNTER0, Lane.COUNTER1}),
            steady=_bits({Lane.PORTB}),
        )

    # -- the counters' ports --------------------------------------------------------------------

    def read_counter0(self, now_ns: int) -> int:
        return self._counter(0, now_ns).read()

    def read_counter1(self, now_ns: int) -> int:
        return self._counter(1, now_ns).read()

    def read_counter2(self, now_ns: int) -> int:
        return self._counter(2, now_ns).read()

    def write_counter0(self, value: int, now_ns: int) -> None:
        timer = self._touched(0, now_ns)
        was = timer.out
        timer.write(value)
        self._timer_changed(was)

    def write_counter1(self, value: int, now_ns: int) -> None:
        self._touched(1, now_ns).write(value)

    def write_counter2(self, value: int, now_ns: int) -> None:
        self._touched(2, now_ns).write(value)

    def write_control(self, value: int, now_ns: int) -> None:
        """A control word, or one of the two commands that share its port."""
        select = value >> 6
        if select == Select.READ_BACK:
            self._read_back(value, now_ns)
            return
        counter = self._counter(select, now_ns)
        if value >> 4 & 3 == ReadWrite.LATCH:
            counter.latch_count()
            return
        was = counter.out
        self._outlooks[select].forget()
        counter.program(value)
        if select == Select.COUNTER0:
            self._timer_changed(was)

    def _read_back(self, command: int, now_ns: int) -> None:
        for index, chosen in enumerate(_READ_BACK_COUNTERS):
            if command & chosen:
                counter = self._counter(index, now_ns)
                if not command & ReadBack.NOT_COUNT:
                    counter.latch_count()
                if not command & ReadBack.NOT_STATUS:
                    counter.latch_status()

    def _timer_changed(self, was: bool) -> None:
        """Counter 0 was written: its OUT may have changed at once, and its next edge moves."""
        now = self.state.counters[0].out
        if now != was:
            self.set_line("irq", now)
        self._schedule()

    # -- port B ---------------------------------------------------------------------------------

    def read_portb(self, now_ns: int) -> int:
        value = self.state.portb
        if pulses_at(now_ns) // REFRESH_PULSES & 1:
            value |= _REFRESH
        if self._counter(2, now_ns).out:
            value |= _TIMER2_OUT
        return value

    def write_portb(self, value: int, now_ns: int) -> None:
        gate = bool(value & PortB.TIMER2_GATE)
        if gate != self.state.counters[2].gate:
            self._touched(2, now_ns).set_gate(gate)
        self.state.portb = value & _PORTB_WRITABLE
