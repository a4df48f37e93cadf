"""What lets devices of different VMs on one device host talk: boxes, members, and their mail.

A message that is posted waits until the access that caused it is over (:meth:`MessageBus.deliver`),
and then until the time of the hearing VM runs. The hearing device is called in its own bus, at
its own VM time, and what it does goes out on its own VM's stream. A VM's mail is heard in the order
in which it was posted, whoever posted it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from devserver.models.channels import MAX_MEMBERS, Receiver
from devserver.models.context import OptionError

#: Messages that may wait for a member, whatever it says of its room.
MAIL_LIMIT = 256
_NAME_LIMIT = 64
#: VMs that hear something in one delivery; the next one goes on.
_ROUNDS = 1024


class MessageBusError(RuntimeError):
    """A model did what the message bus does not allow."""


class Message(NamedTuple):
    """A message that waits for a member."""

    member: BusEndpoint
    sender: int
    data: bytes


class BusEndpoint:
    """A device's place in a box: its :class:`devserver.models.channels.Endpoint`."""

    def __init__(
        self, vm_port: VmPort, device_id: int, place: tuple[str, int], listener: Receiver
    ) -> None:
        self.vm_port = vm_port
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
        if self.vm_port.message_bus.hearing:
            raise MessageBusError("a model posts a message while it hears one")
        chosen = self.others() if to is None else (to,)
        takers = tuple(number for number in chosen if self._put(number, data, once))
        if takers:
            self.vm_port.on_post()
        return takers

    def room(self) -> int:
        """How many messages it can take beside those that wait for it."""
        return max(0, min(self.listener.room(), MAIL_LIMIT) - self.waiting)

    def _put(self, number: int, data: bytes, once: bool) -> bool:
        member = None if number == self.number else self._box().get(number)
        if member is None:
            return False
        mail = Message(member, self.number, data)
        if once and member.waiting and mail in member.vm_port.mail:
            return True
        if member.waiting >= MAIL_LIMIT or (not once and not member.room()):
            return False
        member.vm_port.take(mail)
        return True

    def _box(self) -> Mapping[int, BusEndpoint]:
        return self.vm_port.message_bus.members_of(self.box)


class VmPort:
    """The devices of one VM, or those of them that are placed together, at a message_bus."""

    def __init__(self, message_bus: MessageBus, name: str = "") -> None:
        self.message_bus = message_bus
        self.name = name
        #: What waits to be heard, first come first.
        self.mail: deque[Message] = deque()
        #: Called by :meth:`MessageBus.deliver` when there is mail: takes what can be heard now.
        self.on_message: Callable[[], None] = _nothing
        #: Called when one of the devices has posted something.
        self.on_post: Callable[[], None] = _nothing
        self._members: list[BusEndpoint] = []

    def join(self, device_id: int, box: str, number: int, listener: Receiver) -> BusEndpoint:
        """Takes a place in a box; raises :class:`OptionError`."""
        member = BusEndpoint(self, device_id, (box, number), listener)
        self.message_bus.join(member)
        self._members.append(member)
        return member

    def take(self, mail: Message) -> None:
        """Something was posted to one of the devices."""
        mail.member.waiting += 1
        self.mail.append(mail)
        self.message_bus.ring(self)

    def hear(self, now_ns: int) -> int:
        """Has a device hear what came first, at VM time ``now_ns``; returns its identifier.

        Whatever the model raises comes through.
        """
        member, sender, data = self.mail.popleft()
        member.waiting -= 1
        self.message_bus.hearing = True
        try:
            member.listener.heard(sender, data, now_ns)
        finally:
            self.message_bus.hearing = False
        return member.device_id

    def leave(self, device_id: int | None = None) -> None:
        """A device, or all of them, leave their boxes; their mail is dropped."""
        gone = [m for m in self._members if device_id in (None, m.device_id)]
        for member in gone:
            self.message_bus.leave(member)
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
            self.take(Message(member, sender, data))

    def _drop_mail(self, member: BusEndpoint) -> None:
        self.mail = deque(mail for mail in self.mail if mail.member is not member)
        member.waiting = 0


class MessageBus:
    """The boxes of one device host. ``monotonic_ns`` tells the time by CLOCK_MONOTONIC."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.monotonic_ns = monotonic_ns
        #: Those who have got mail since it was delivered last.
        self.rung: list[VmPort] = []
        #: Whether a device hears something just now.
        self.hearing = False
        self._boxes: dict[str, dict[int, BusEndpoint]] = {}

    def members_of(self, box: str) -> Mapping[int, BusEndpoint]:
        """Who is in a box, by number."""
        return self._boxes.get(box, {})

    def join(self, member: BusEndpoint) -> None:
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
            whose = box[member.number].vm_port.name
            raise OptionError(
                f"member {member.number} of box '{member.box}' is taken already"
                f"{f', by VM {whose!r}' if whose else ''}; give this device another number"
            )
        box[member.number] = member

    def leave(self, member: BusEndpoint) -> None:
        """Frees a place, and forgets a box that nobody is in."""
        box = self._boxes[member.box]
        del box[member.number]
        if not box:
            del self._boxes[member.box]

    def ring(self, vm_port: VmPort) -> None:
        """Has a vm_port called by the next :meth:`deliver`, if there is mail for it."""
        if vm_port.mail and vm_port not in self.rung:
            self.rung.append(vm_port)

    def deliver(self) -> None:
        """Has everybody hear what was posted; for when no device is being called.

        What that causes to be posted in turn is heard too, up to a bound.
        """
        for _ in range(_ROUNDS):
            if not self.rung:
                break
            self.rung.pop(0).on_message()


def _nothing() -> None:
    pass
