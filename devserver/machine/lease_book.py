"""Which answers a client holds as leases, and which of them have changed.

A :class:`LeaseBook` stands beside a bus, and watches the accesses to its devices that have
leases. Devices without leases have no watch, and cost nothing. What an access may have changed is
looked at again only when :meth:`LeaseBook.changes` is called, once for all that one message caused.

What the client does by itself with a pair or a held value (``docs/protocol.md``, Leases) is
*predicted*: it changes the model's answer, but not what the client has to be told. Only when
something else changes too is such a lease said anew, as the model has it then.

A lease that is withdrawn again and again before a read can have used it only costs messages: a
driver that works by interrupt reads IIR when it has something to say, never while it could be
leased. Such a lease is withheld until a read is asked that it would have answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from devserver.machine.bus import Bus, Mapped
from devserver.machine.policies import offsets
from devserver.machine.slot import Slot
from devserver.models.declarations import checked_lease
from devserver.models.dispatch import Lessor
from devserver.models.lease import ANY_LANE, LANES, Lease, Term
from devserver.protocol.connection import blank
from devserver.protocol.messages import Lease as LeaseMessage
from devserver.protocol.messages import LeaseRule
from devserver.protocol.messages import Term as TermMessage

_WORD = (1 << 64) - 1

#: A lease withdrawn so often since a read last wanted it is withheld until one does.
_FICKLE = 4


class Change(NamedTuple):
    """A lease that the client does not have yet; None revokes the one it has."""

    device_id: int
    space: int
    address: int
    lease: Lease | None


class LeaseBook:
    """The leases of one machine's client."""

    def __init__(self, bus: Bus, on_change: Callable[[], None]) -> None:
        """``on_change`` is called when there may be changes where there were none."""
        self._bus = bus
        self._on_change = on_change
        self._dirty: list[_Watch] = []
        #: Whether a batch held an access that suspends a lease: the client waits for an ACK.
        self.owes_ack = False
        for slot in bus.slots.values():
            self.add(slot)

    def add(self, slot: Slot) -> None:
        """Grants leases of a device from now on."""
        mapped_here = [mapped for mapped in self._bus.mapped() if mapped.slot is slot]
        leased = {
            mapped: [
                offset
                for offset in offsets(mapped.region)
                if slot.policies.may_be_leased(mapped.region, offset)
            ]
            for mapped in mapped_here
        }
        watch = _Watch(slot, self._touch) if any(leased.values()) else None
        if watch is not None:
            lane = 0
            for mapped in mapped_here:  # those without a lease too: writes there may change one
                watch.add(mapped, lane, leased[mapped])
                lane += mapped.region.size
        slot.watch = watch
        if watch is not None:
            watch.mark()

    def forget(self, slot: Slot) -> None:
        """A device is there no longer."""
        self._dirty = [watch for watch in self._dirty if watch is not slot.watch]
        slot.watch = None

    def changes(self) -> list[Change]:
        """The leases that are to be said now, before whatever changed them."""
        found: list[Change] = []
        now_ns = self._bus.now_ns
        for watch in self._dirty:
            found += watch.look(now_ns)
        self._dirty.clear()
        return found

    def has_changes(self) -> bool:
        """Whether :meth:`changes` has anything to look at."""
        return bool(self._dirty)

    def _touch(self, watch: _Watch, posted: bool) -> None:
        if posted:
            self.owes_ack = True
        if not self._dirty:
            self._on_change()
        self._dirty.append(watch)


class _Place:
    """A byte whose reads may be leased, and what the client holds there."""

    __slots__ = ("address", "evolved", "lease", "mapped", "offset", "withdrawn", "withheld")

    def __init__(self, mapped: Mapped, offset: int) -> None:
        self.mapped = mapped
        self.offset = offset
        self.address = mapped.base + offset
        self.lease: Lease | None = None
        #: The client has gone on with the lease by itself.
        self.evolved = False
        #: How often the lease went since a read last wanted it.
        self.withdrawn = 0
        self.withheld = False

    def grant(self, lease: Lease | None) -> bool:
        """What the model grants now; whether the client is to be told."""
        held, evolved = self.lease, self.evolved
        self.evolved = self.withheld = False
        if lease is None:
            self.withdrawn += held is not None
        elif held is None and self.withdrawn >= _FICKLE:
            self.withheld = True
            return False
        self.lease = lease
        return lease != held or evolved


class _Watch:
    """What the client was granted of one device."""

    def __init__(self, slot: Slot, touch: Callable[[_Watch, bool], None]) -> None:
        self._slot = slot
        self._touch = touch
        self._lanes: dict[Mapped, int] = {}
        self._places: dict[tuple[Mapped, int], _Place] = {}
        self._written: dict[int, int] = {}
        self._is_dirty = False
        #: Lanes that change no lease, one bit each.
        self._unaffected = 0
        #: Where the model counts a region's lanes from; it counts those of unwired regions too.
        self._model_lanes: dict[str, int] = {}
        lane = 0
        for region in slot.device.regions:
            self._model_lanes[region.name] = lane
            lane += region.size
        self._moves_lanes = False
        self._lessors: dict[str, list[tuple[_Place, Lessor | None]]] = {}

    def add(self, mapped: Mapped, lane: int, leased: list[int]) -> None:
        """One of the device's regions, whose first byte is ``lane``, with its leased offsets."""
        self._lanes[mapped] = lane
        self._moves_lanes |= self._model_lanes[mapped.name] != lane
        for offset in leased:
            place = _Place(mapped, offset)
            self._places[mapped, place.address] = place
        self._lessors.clear()

    def mark(self, posted: bool = False) -> None:
        """Something happened that may have changed the device's leases."""
        if posted or not self._is_dirty:
            already, self._is_dirty = self._is_dirty, True
            if not already or posted:
                self._touch(self, posted)

    # -- what a bus says, behind each access to the device --------------------------------

    def wrote(self, mapped: Mapped, address: int, size: int, value: int, posted: bool) -> None:
        """The guest wrote ``size`` bytes."""
        lane = self._lanes[mapped] + address - mapped.base
        if size != 1 or lane >= LANES:
            for each in range(lane, lane + size):
                self._written.pop(each, None)
            self.mark(posted)
            return
        repeated = self._written.get(lane) == value
        self._written[lane] = value
        if self._unaffected >> lane & 1:
            return
        for place in self._places.values():  # in the order in which a client looks at it
            lease = place.lease
            if lease is None:
                self.mark(posted=False)
            elif lease.hold is not None and lease.hold.is_meant_by(lane, value):
                place.evolved = True
            elif not lease.is_unaffected_by(lane) and not (repeated and lease.steady >> lane & 1):
                self.mark(posted)

    def wrote_run(self, mapped: Mapped, address: int, values: bytes) -> None:
        """The guest wrote bytes to one address, not waiting."""
        lane = self._lanes[mapped] + address - mapped.base
        if lane < LANES and self._unaffected >> lane & 1:
            self._written[lane] = values[-1]
        else:
            for value in values:
                self.wrote(mapped, address, 1, value, posted=True)

    def read(self, mapped: Mapped, address: int, size: int, now_ns: int, posted: bool) -> None:
        """The guest read ``size`` bytes; ``posted``: the client had answered the read itself."""
        place = self._places.get((mapped, address))
        lease = None if place is None else place.lease
        if place is None or lease is None or size != 1:
            if place is not None and place.withheld:
                place.withdrawn = 0
            self.mark()
        elif lease.is_changed_by_reading():
            if posted:
                place.evolved = True
            else:
                self.mark()
        elif lease.until_ns and now_ns >= lease.until_ns:
            self.mark()

    def moved(self) -> None:
        """The device did something on its own, or was fed."""
        self.mark()

    # -- lanes ----------------------------------------------------------------------------------

    def _on_the_wire(self, lease: Lease) -> Lease:
        """A model's lease with the lanes that the client counts: those of wired regions."""
        hold = lease.hold
        if hold is not None:
            lane = self._lane(hold.lane)
            hold = None if lane is None else replace(hold, lane=lane)
        return replace(
            lease,
            unaffected=self._mask(lease.unaffected),
            steady=self._mask(lease.steady),
            hold=hold,
        )

    def _mask(self, mask: int) -> int:
        wired = 0
        for mapped, lane in self._lanes.items():
            own = mask >> self._model_lanes[mapped.name] & ((1 << mapped.region.size) - 1)
            wired |= own << lane
        return wired & ANY_LANE

    def _lane(self, model_lane: int) -> int | None:
        for mapped, lane in self._lanes.items():
            offset = model_lane - self._model_lanes[mapped.name]
            if 0 <= offset < mapped.region.size:
                return lane + offset
        return None

    # -- what the book asks ---------------------------------------------------------------------

    def _lessors_in(self, bank: str) -> list[tuple[_Place, Lessor | None]]:
        """What says the lease of each place while a bank is selected; None: it has none then."""
        if bank not in self._lessors:
            self._lessors[bank] = [
                (place, self._lessor(place.mapped, place.offset, bank))
                for place in self._places.values()
            ]
        return self._lessors[bank]

    def _lessor(self, mapped: Mapped, offset: int, bank: str) -> Lessor | None:
        if not self._slot.policies.is_leased(mapped.region, offset, bank):
            return None
        return self._slot.device.lessor(mapped.name, offset, bank)

    def look(self, now_ns: int) -> list[Change]:
        """Asks the model anew. Raises :class:`DeviceFault` if it fails at that."""
        if not self._is_dirty:
            return []
        self._is_dirty = False
        try:
            return self._changes(now_ns)
        except BaseException as error:
            raise self._slot.fault(error) from error

    def _check(self, place: _Place, lease: Lease) -> None:
        """Raises :class:`ModelError` for a lease that can't be told."""
        device = self._slot.device
        register = device.register_at(place.mapped.name, place.offset)
        checked_lease(type(device), register.name, lease)

    def _changes(self, now_ns: int) -> list[Change]:
        found: list[Change] = []
        for place, lessor in self._lessors_in(self._slot.device.bank()):
            lease = None if lessor is None else lessor(now_ns)
            if lease is place.lease and not place.evolved and not place.withheld:
                continue  # as nearly all are
            if lease is not None and lease.__class__ is not Lease:
                self._check(place, lease)
            if lease is not None and self._moves_lanes:
                lease = self._on_the_wire(lease)
            if place.grant(lease):
                if lease is not None and lease.problem():
                    self._check(place, lease)
                space = int(place.mapped.region.space)
                found.append(Change(self._slot.device_id, space, place.address, lease))
        if found:
            self._unaffected = ANY_LANE
            for lease in (place.lease for place in self._places.values()):
                self._unaffected &= 0 if lease is None else lease.unaffected
        return found


def lease_message(change: Change) -> LeaseMessage:
    """A change in the protocol's words; to be stamped."""
    lease = change.lease
    where = {"device_id": change.device_id, "space": change.space, "address": change.address}
    if lease is None:
        return blank(LeaseMessage, **where, terms=())
    return blank(
        LeaseMessage,
        **where,
        rule=_rule(lease),
        value=lease.value,
        until_ns=lease.until_ns,
        unaffected=lease.unaffected,
        steady=lease.steady,
        terms=tuple(map(_term, lease.terms)),
    )


def _rule(lease: Lease) -> int:
    rule = LeaseRule.GRANTED
    if lease.pair:
        rule |= LeaseRule.PAIR
    if lease.high_next:
        rule |= LeaseRule.HIGH_NEXT
    if lease.hold is None:
        return int(rule)
    hold = lease.hold
    return int(rule | LeaseRule.HOLD) | hold.lane << 16 | hold.mask << 8 | hold.match


def _term(term: Term) -> TermMessage:
    return TermMessage(*(getattr(term, name) & _WORD for name in TermMessage._fields))
