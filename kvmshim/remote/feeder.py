"""Bytes on their way to a device's input channel, no more of them than the device has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from devserver.protocol.limits import FEED_WINDOW_BYTES, MAX_FEED_BYTES
from devserver.protocol.messages import AttachedDevice
from kvmshim.vmstate.state import PendingInput

#: Sends bytes stamped with a VM time; the flag says that they are the last.
SendFeed = Callable[[bytes, int, bool], None]


class Feeder:
    """Holds what the device's backlog has no room for, and sends it as the device takes more."""

    def __init__(self, send: SendFeed) -> None:
        self._send = send
        self._held = bytearray()
        self._sent = 0
        self._taken = 0
        self._before = 0
        self._end = False
        self._ended = False

    @property
    def waiting(self) -> int:
        """Bytes that were given and not sent yet."""
        return len(self._held)

    def give(self, data: bytes, time_ns: int, *, end: bool = False) -> None:
        """More bytes for the device; ``end``: the last ones."""
        self._held += data
        self._end = self._end or end
        self._pump(time_ns)

    def consumed(self, total: int, time_ns: int) -> None:
        """The device has taken ``total`` bytes so far."""
        self._taken = self._before + total
        self._pump(time_ns)

    def save(self, device: str, channel: int) -> PendingInput:
        """What has not been sent yet; what has is in the device's state."""
        return PendingInput(
            device, channel, bytes(self._held), self._sent - self._taken, self._end, self._ended
        )

    def load(self, pending: PendingInput, time_ns: int) -> None:
        """Takes over from another that sent to the same device.

        The device counts anew from the next byte, so its count does not say when it takes what it
        has. Where that is all that there is room for, one byte more goes to have it say so.
        """
        self._held = bytearray(pending.held)
        self._end, self._ended = pending.end, pending.ended
        self._sent = self._before = pending.under_way
        if self._sent >= FEED_WINDOW_BYTES:
            self._taken = self._sent - FEED_WINDOW_BYTES + 1
        self._pump(time_ns)

    def _pump(self, time_ns: int) -> None:
        while not self._ended:
            room = FEED_WINDOW_BYTES - (self._sent - self._taken)
            part = bytes(self._held[: min(room, MAX_FEED_BYTES)])
            del self._held[: len(part)]
            end = self._end and not self._held
            if not part and not end:
                return
            self._sent += len(part)
            self._ended = end
            self._send(part, time_ns, end)


#: Feeders by device and channel, both in numbers.
Feeders = Mapping[tuple[int, int], Feeder]


class FeedDevice(Protocol):
    """Sends bytes to a device's channel."""

    def __call__(
        self, device_id: int, channel: int, data: bytes, time_ns: int, end: bool, /
    ) -> None: ...


def save_inputs(feeders: Feeders, devices: Iterable[AttachedDevice]) -> list[PendingInput]:
    """What waits in these feeders, by the devices' names."""
    names = {device.device_id: device.name for device in devices}
    return [
        feeder.save(names[device_id], channel)
        for (device_id, channel), feeder in feeders.items()
        if device_id in names
    ]


def load_inputs(
    inputs: Iterable[PendingInput],
    devices: Iterable[AttachedDevice],
    feed: FeedDevice,
    time_ns: int,
) -> dict[tuple[int, int], Feeder]:
    """Feeders of these devices that go on with what was saved."""
    numbers = {device.name: device.device_id for device in devices}
    feeders = {}
    for pending in inputs:
        if pending.device in numbers:
            key = (numbers[pending.device], pending.channel)
            feeders[key] = Feeder(partial(feed, *key))
            feeders[key].load(pending, time_ns)
    return feeders
