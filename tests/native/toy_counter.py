"""A device whose every answer follows from the guest's accesses and their times; and its server.

The device has eight ports. 0: a counter that runs down, read low byte first, one count a
microsecond. 1: commands; 0x holds the counter's value for two reads, anything else lets go of it
and reads the low byte next. 2: starts the counter anew. 3: a register. 4: the sum of registers 3
and 5, read only. 5: another register, whose writes wait. 6, 7: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wire_guest import CLIENT_ID, HYPERVISOR, VM_ID

from devserver.models.lease import Hold, Lease, Term
from devserver.protocol import codec, messages
from devserver.protocol.messages import (
    Ack,
    AttachedDevice,
    AttachedRegion,
    Batch,
    Feedback,
    Finish,
    LeaseRule,
    Message,
    Ping,
    PolicyRange,
    Pong,
    Request,
)

BASE, PORTS, DEVICE = 0x300, 8, 1
COUNT, COMMAND, LOAD, PLAIN, SUM, WAITING = range(6)
LEASED = (COUNT, PLAIN, SUM)
_WORD = (1 << 64) - 1

DEVICES = [
    AttachedDevice(
        device_id=DEVICE,
        name="toy",
        kind="toy",
        version=1,
        regions=[
            AttachedRegion(
                name="io",
                space=0,
                base=BASE,
                size=PORTS,
                policies=[
                    PolicyRange(0, WAITING, "posted"),
                    PolicyRange(6, 2, "coalesced"),
                    *(PolicyRange(lane, 1, "leased") for lane in LEASED),
                ],
            )
        ],
    )
]


@dataclass
class ToyCounter:
    """The device."""

    start: int = 0
    held: int | None = None
    high_next: bool = False
    plain: int = 0
    waiting: int = 0
    held_reads: int = 0

    def write(self, lane: int, value: int, now_ns: int) -> None:
        if lane == COMMAND and not value & 0xF0:
            if self.held is None:
                self.held, self.held_reads = self._count(now_ns), 2
        elif lane == COMMAND:
            self.held, self.held_reads, self.high_next = None, 0, False
        elif lane == LOAD:
            self.start = value * 0x101 + now_ns // 1000
        elif lane == PLAIN:
            self.plain = value
        elif lane == WAITING:
            self.waiting = value

    def read(self, lane: int, now_ns: int) -> int:
        if lane == COUNT:
            return self._read_count(now_ns)
        return {PLAIN: self.plain, SUM: self.plain + self.waiting & 0xFF}.get(lane, 0xFF)

    def _count(self, now_ns: int) -> int:
        return self.start - now_ns // 1000 & 0xFFFF

    def _read_count(self, now_ns: int) -> int:
        value = self._count(now_ns) if self.held is None else self.held
        byte = value >> 8 if self.high_next else value & 0xFF
        self.high_next = not self.high_next
        self.held_reads = max(0, self.held_reads - 1)
        if not self.held_reads:
            self.held = None
        return byte

    def lease(self, lane: int) -> Lease | None:
        """What the model leases."""
        if lane == PLAIN:
            return Lease(value=self.plain, unaffected=~(1 << PLAIN) & 0xFF, steady=1 << PLAIN)
        if lane == SUM:
            return Lease(value=self.plain + self.waiting & 0xFF, unaffected=0xC7)
        if self.held is not None:
            return None
        down = Term(num=1, den=1000, origin=0, length=_WORD, start=self.start, step=-1, mask=0xFFFF)
        return Lease(
            terms=(down,),
            pair=True,
            high_next=self.high_next,
            hold=Hold(lane=COMMAND, mask=0xF0, match=0),
            unaffected=0xF8,
        )


@dataclass
class ToyServer:
    """Serves a :class:`ToyCounter` with leases, as docs/protocol.md says."""

    device: ToyCounter = field(default_factory=ToyCounter)
    granted: dict[int, Lease | None] = field(default_factory=dict)
    evolved: set[int] = field(default_factory=set)
    written: dict[int, int] = field(default_factory=dict)
    sent: int = 0
    received: int = 0
    leases_sent: int = 0
    _out: list[Message] = field(default_factory=list)

    def receive(self, payload: bytes) -> Sequence[bytes]:
        """Takes a client's frame; gives the frames that follow from it."""
        for message in codec.decode(payload):
            match message:
                case Batch():
                    self.received = message.seq
                    self._batch(message)
                case Request():
                    self.received = message.seq
                    self._request(message)
                case Ping():
                    self._out.append(Pong(message.token, self.received))
        return self._frames()

    def say_again(self) -> Sequence[bytes]:
        """Says all leases once more, as a server may at any time."""
        self.evolved.update(LEASED)
        self._ask(LEASED)
        return self._frames()

    def _frames(self) -> Sequence[bytes]:
        frames, self._out = [codec.encode(message) for message in self._out], []
        return frames

    def _batch(self, batch: Batch) -> None:
        suspending = False
        for _, direction, _, address, size, time_ns, value in batch.writes:
            lane = address - BASE
            if direction:
                for at in range(size):
                    suspending |= self._write(lane + at, value >> 8 * at & 0xFF, time_ns)
            else:
                self.device.read(lane, time_ns)
                self.evolved.add(lane)
                self._ask(other for other in LEASED if other != lane)
        if suspending:
            self._out.append(Ack(self.received))

    def _request(self, request: Request) -> None:
        head = (VM_ID, HYPERVISOR, CLIENT_ID)
        lane = request.address - BASE
        if request.direction:
            for at, value in enumerate(request.data):
                self._write(lane + at, value, request.time_ns)
            answer: Message = Finish(0, 0, *head, request.seq, 0)
        else:
            data = bytes(self.device.read(lane + at, request.time_ns) for at in range(request.size))
            self._ask(LEASED)
            answer = Feedback(0, 0, *head, request.seq, 0, data)
        self._number(answer)

    def _write(self, lane: int, value: int, now_ns: int) -> bool:
        """Applies a write; whether it suspends a lease."""
        repeated = self.written.get(lane) == value
        affected = []
        for other in LEASED:
            lease = self.granted.get(other)
            if lease and lease.hold and lease.hold.is_meant_by(lane, value):
                self.evolved.add(other)
            elif lease and (
                lease.is_unaffected_by(lane) or (repeated and lease.steady >> lane & 1)
            ):
                continue
            else:
                affected.append(other)
        self.device.write(lane, value, now_ns)
        self.written[lane] = value
        suspends = any(self.granted.get(other) for other in affected)
        self._ask(affected)
        return suspends

    def _ask(self, lanes: Sequence[int] | object) -> None:
        for lane in lanes:  # type: ignore[attr-defined]
            lease = self.device.lease(lane)
            if lease != self.granted.get(lane) or lane in self.evolved:
                self.granted[lane] = lease
                self.evolved.discard(lane)
                self.leases_sent += 1
                self._number(_said(lane, lease))

    def _number(self, message: Message) -> None:
        self.sent += 1
        stamped = message._replace(seq=self.sent, applied=self.received)  # type: ignore[union-attr]
        self._out.append(stamped)


def _said(lane: int, lease: Lease | None) -> messages.Lease:
    head = (0, 0, VM_ID, HYPERVISOR, CLIENT_ID, DEVICE, 0, BASE + lane)
    if lease is None:
        return messages.Lease(*head, 0, 0, 0, 0, 0, ())
    rule = int(LeaseRule.GRANTED)
    rule |= LeaseRule.PAIR * lease.pair | LeaseRule.HIGH_NEXT * lease.high_next
    if lease.hold:
        rule |= LeaseRule.HOLD | lease.hold.lane << 16 | lease.hold.mask << 8 | lease.hold.match
    terms = tuple(
        messages.Term(*(getattr(term, name) & _WORD for name in messages.Term._fields))
        for term in lease.terms
    )
    return messages.Lease(
        *head, rule, lease.value, lease.until_ns, lease.unaffected, lease.steady, terms
    )
