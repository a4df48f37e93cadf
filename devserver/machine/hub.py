"""What lets devices of different VMs on one device host talk: boxes, members, and their mail.

A message that is posted waits until the access that caused it is over (:meth:`Hub.deliver`), and
then until the time of the hearing VM runs. The hearing device is called in its own backplane, at
its own VM time, and what it does goes out on its own VM's stream. A VM's mail is heard in the order
in which it was posted, whoever posted it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from devserver.models.boxes import MAX_MEMBERS, Listener
from devserver.models.context import OptionError

#: Messages that may wait for a member, whatever it says of its room.
MAIL_LIMIT = 256
_NAME_LIMIT = 64
#: VMs that hear something in one delivery; the next one goes on.
_ROUNDS = 1024


class HubError(RuntimeError):
    """A model did what the hub does not allow."""


class Mail(NamedTuple):
    """A message that waits for a member."""

    member: Member
    sender: int
    data: bytes


class Member:
    """A device's place in a box: its :class:`devserver.models.boxes.Seat`."""

    def __init__(
        self, party: Party, device_id: int, place: tuple[str, int], listener: Listener
    ) -> None:
        self.party = party
        self.device_id = device_id
        self.box, self.number = place
        self.listener = listener
        #: Messages that wait for it.
        self.waiting = 0

    def others(self) -> tuple[int, ...]:
        return tuple(sorted(n for n in self._box() if n != self.number))

    def room_of(self, number: int) -> int:
        other = None if number == self.number else self._box().get(number)
        return 0 if other is None else other.room()

    def post(self, data: bytes, to: int | None = None, *, once: bool = False) -> tuple[int, ...]:
        if self.party.hub.hearing:
            raise HubError("a model posts a message while it hears one")
        chosen = self.others() if to is None else (to,)
        takers = tuple(number for number in chosen if self._put(number, data, once))
        if takers:
            self.party.on_post()
        return takers

    def room(self) -> int:
        """How many messages it can take beside those that wait for it."""
        return max(0, min(self.listener.room(), MAIL_LIMIT) - self.waiting)

    def _put(self, number: int, data: bytes, once: bool) -> bool:
        member = None if number == self.number else self._box().get(number)
        if member is None:
            return False
        mail = Mail(member, self.number, data)
        if once and member.waiting and mail in member.party.mail:
            return True
        if member.waiting >= MAIL_LIMIT or (not once and not member.room()):
            return False
        member.party.take(mail)
        return True

    def _box(self) -> Mapping[int, Member]:
        return self.party.hub.members_of(self.box)


class Party:
    """The devices of one VM, or those of them that are placed together, at a hub."""

    def __init__(self, hub: Hub, name: str = "") -> None:
        self.hub = hub
        self.name = name
        #: What waits to be heard, first come first.
        self.mail: deque[Mail] = deque()
        #: Called by :meth:`Hub.deliver` when there is mail: takes what can be heard now.
        self.on_mail: Callable[[], None] = _nothing
        #: Called when one of the devices has posted something.
        self.on_post: Callable[[], None] = _nothing
        self._members: list[Member] = []

    def join(self, device_id: int, box: str, number: int, listener: Listener) -> Member:
        """Takes a place in a box; raises :class:`OptionError`."""
        member = Member(self, device_id, (box, number), listener)
        self.hub.seat(member)
        self._members.append(member)
        return member

    def take(self, mail: Mail) -> None:
        """Something was posted to one of the devices."""
        mail.member.waiting += 1
        self.mail.append(mail)
        self.hub.ring(self)

    def hear(self, now_ns: int) -> int:
        """Has a device hear what came first, at VM time ``now_ns``; returns its identifier.

        Whatever the model raises comes through.
        """
        member, sender, data = self.mail.popleft()
        member.waiting -= 1
        self.hub.hearing = True
        try:
            member.listener.heard(sender, data, now_ns)
        finally:
            self.hub.hearing = False
        return member.device_id

    def leave(self, device_id: int | None = None) -> None:
        """A device, or all of them, leave their boxes; their mail is dropped."""
        gone = [m for m in self._members if device_id in (None, m.device_id)]
        for member in gone:
            self.hub.unseat(member)
            self._members.remove(member)
            self._drop_mail(member)

    def save(self, device_id: int) -> list[list[Any]]:
        """What waits for a device, as plain data."""
        return [[m.sender, m.data] for m in self.mail if m.member.device_id == device_id]

    def load(self, device_id: int, saved: Sequence[Sequence[Any]]) -> None:
        """Has for a device waiting what :meth:`save` gave, and nothing else; raises ValueError."""
        if not all(s in range(MAX_MEMBERS) and isinstance(data, bytes) for s, data in saved):
            raise ValueError("a device's mail is no list of senders and messages")
        member = next((m for m in self._members if m.device_id == device_id), None)
        if member is None:
            if saved:
                raise ValueError("there is mail for a device that is in no box")
            return
        self._drop_mail(member)
        for sender, data in saved:
            self.take(Mail(member, sender, data))

    def _drop_mail(self, member: Member) -> None:
        self.mail = deque(mail for mail in self.mail if mail.member is not member)
        member.waiting = 0


class Hub:
    """The boxes of one device host. ``monotonic_ns`` tells the time by CLOCK_MONOTONIC."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.monotonic_ns = monotonic_ns
        #: Those who have got mail since it was delivered last.
        self.rung: list[Party] = []
        #: Whether a device hears something just now.
        self.hearing = False
        self._boxes: dict[str, dict[int, Member]] = {}

    def members_of(self, box: str) -> Mapping[int, Member]:
        """Who is in a box, by number."""
        return self._boxes.get(box, {})

    def seat(self, member: Member) -> None:
        """Gives a device its place; raises :class:`OptionError`."""
        if not 0 < len(member.box) <= _NAME_LIMIT:
            raise OptionError(f"a box has a name of 1 to {_NAME_LIMIT} characters")
        if not 0 <= member.number < MAX_MEMBERS:
            raise OptionError(
                f"member {member.number} of box '{member.box}': members are numbered from 0 to "
                f"{MAX_MEMBERS - 1}"
            )
        box = self._boxes.setdefault(member.box, {})
        if member.number in box:
            whose = box[member.number].party.name
            raise OptionError(
                f"member {member.number} of box '{member.box}' is taken already"
                f"{f', by VM {whose!r}' if whose else ''}; give this device another number"
            )
        box[member.number] = member

    def unseat(self, member: Member) -> None:
        """Frees a place, and forgets a box that nobody is in."""
        box = self._boxes[member.box]
        del box[member.number]
        if not box:
            del self._boxes[member.box]

    def ring(self, party: Party) -> None:
        """Has a party called by the next :meth:`deliver`, if there is mail for it."""
        if party.mail and party not in self.rung:
            self.rung.append(party)

    def deliver(self) -> None:
        """Has everybody hear what was posted; for when no device is being called.

        What that causes to be posted in turn is heard too, up to a bound.
        """
        for _ in range(_ROUNDS):
            if not self.rung:
                break
            self.rung.pop(0).on_mail()


def _nothing() -> None:
    pass
