"""How devices of different VMs talk: they join a box, and post messages to its other members.

What carries the messages is not the models' business: where VMs share a device host, its message
bus does (:mod:`devserver.machine.message_bus`).
"""

from __future__ import annotations

from typing import Protocol

#: Members of a box are numbered from 0 up to, without, this.
MAX_MEMBERS = 32


class Receiver(Protocol):
    """A device that has joined a box."""

    def room(self) -> int:
        """How many more messages it can take now."""

    def heard(self, sender: int, data: bytes, now_ns: int) -> None:
        """Takes a message of another member, at a VM time of its own.

        It may do what it may do on a write, but not post: what it has to answer waits for its
        guest's next access, or for a deadline.
        """


class Endpoint(Protocol):
    """A device's place in a box."""

    def others(self) -> tuple[int, ...]:
        """The numbers of the other members, in order."""

    def room_of(self, number: int) -> int:
        """How many messages another member can take; 0 if there is no such member."""

    def post(self, data: bytes, to: int | None = None, *, once: bool = False) -> tuple[int, ...]:
        """Posts a message to one other member, or to all; returns who will hear it.

        Those are left out who have no room. They hear it after the access that this is part of,
        in the order in which messages were posted. ``once``: a message of which one suffices. It
        needs no room, and if the same one waits to be heard already, it is not put a second time.
        """


class Channels(Protocol):
    """Where a device joins a box."""

    def join(self, box: str, number: int, listener: Receiver) -> Endpoint:
        """Takes the place ``number`` in a box, which comes to be if nobody was in it.

        Raises :class:`~devserver.models.context.OptionError` if another device has that place.
        """


class NoEndpoint:
    """A place in a box that nobody else can join."""

    def others(self) -> tuple[int, ...]:
        return ()

    def room_of(self, number: int) -> int:
        return 0

    def post(self, data: bytes, to: int | None = None, *, once: bool = False) -> tuple[int, ...]:
        return ()


class NoChannels:
    """For a device with nobody around it."""

    def join(self, box: str, number: int, listener: Receiver) -> Endpoint:
        return NoEndpoint()
