"""The VMs that are attached, as the panel is told of them: what has changed, a little at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from devserver.host.client import Client

#: A piece ends after so many VMs have been looked at, or so many devices have been told of.
_LOOKED_AT = 256
_DEVICES = 64


class Piece(NamedTuple):
    """VMs that are new or have other devices now, the numbers of those that are gone, and whether
    there is more."""

    guests: list[dict[str, Any]]
    gone: list[int]
    more: bool


class _Told(NamedTuple):
    number: int
    client: Client
    rebuilt: int


class Roster:
    """What one panel has been told; it hears what differs from that."""

    def __init__(self, clients: Mapping[int, Client]) -> None:
        """``clients`` are those of the host, by descriptor, as they come and go."""
        self._clients = clients
        self._numbers = itertools.count(1)
        self._told: dict[int, _Told] = {}
        self._left: list[Client] = []

    def begin(self) -> None:
        """The panel asks: all clients that are here now are looked at."""
        self._left = list(self._clients.values())

    def piece(self) -> Piece:
        """The next of what has changed since the panel asked before."""
        gone = [fd for fd, told in self._told.items() if self._clients.get(fd) is not told.client]
        numbers = [self._told.pop(fd).number for fd in gone]
        guests: list[dict[str, Any]] = []
        devices = 0
        for _ in range(min(_LOOKED_AT, len(self._left))):
            if devices >= _DEVICES:
                break
            guest = self._changed(self._left.pop())
            if guest is not None:
                guests.append(guest)
                devices += 1 + len(guest["devices"])
        return Piece(guests, numbers, more=bool(self._left))

    def _changed(self, client: Client) -> dict[str, Any] | None:
        guest, rebuilt = client.session.handshake.guest, client.session.vm.rebuilt
        if guest is None or self._clients.get(client.fd) is not client:
            return None
        told = self._told.get(client.fd)
        if told is not None and told.rebuilt == rebuilt:
            return None
        number = next(self._numbers) if told is None else told.number
        self._told[client.fd] = _Told(number, client, rebuilt)
        devices = [
            {"name": slot.wiring.name, "kind": slot.device.kind, "version": slot.device.version}
            for slot in client.session.bus.slots.values()
        ]
        return {**guest, "number": number, "devices": devices}
