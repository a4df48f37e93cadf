"""Input that was on its way when a machine was suspended arrives once, and all of it."""

from __future__ import annotations

import pytest

from devserver.protocol.limits import FEED_WINDOW_BYTES
from kvmshim.remote.feeder import Feeder


class Device:
    """Holds what it is sent and takes it when told to; counts as a server does."""

    def __init__(self) -> None:
        self.waiting = bytearray()
        self.taken = b""
        self.count = 0
        self.ended = False

    def send(self, data: bytes, time_ns: int, end: bool) -> None:
        self.waiting += data
        self.ended = self.ended or end

    def take(self, feeder: Feeder, most: int) -> None:
        part = bytes(self.waiting[:most])
        del self.waiting[:most]
        self.taken += part
        self.count += len(part)
        if self.count > 0:
            feeder.consumed(self.count, 0)


def moved(feeder: Feeder, device: Device) -> Feeder:
    """The feeder of the machine's next life; the device counts from the next byte."""
    device.count = -len(device.waiting)
    fresh = Feeder(device.send)
    fresh.load(feeder.save("com1", 0), 0)
    return fresh


@pytest.mark.parametrize("length", [10, FEED_WINDOW_BYTES, 3 * FEED_WINDOW_BYTES])
@pytest.mark.parametrize("most", [1000, FEED_WINDOW_BYTES])
def test_everything_comes_once_and_in_order(length: int, most: int) -> None:
    device, data = Device(), bytes(i % 251 for i in range(length))
    feeder = Feeder(device.send)
    feeder.give(data, 0, end=True)
    while len(device.taken) < length:
        feeder = moved(feeder, device)
        device.take(feeder, most)
    assert device.taken == data
    assert device.ended


def test_moving_again_and_again_does_not_pile_input_up_at_the_device() -> None:
    device = Device()
    feeder = Feeder(device.send)
    feeder.give(bytes(10 * FEED_WINDOW_BYTES), 0)
    for _ in range(50):
        feeder = moved(feeder, device)
    assert len(device.waiting) <= FEED_WINDOW_BYTES + 50
