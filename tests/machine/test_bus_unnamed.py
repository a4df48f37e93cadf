"""A wiring may leave out the names of the model's first region and of its only output."""

from __future__ import annotations

import pytest

from devserver.machine.board import DeviceWiring
from devserver.machine.bus import BoardError, Bus
from devserver.models.device import Signal


class Deaf:
    """A sink that nothing reaches."""

    def line(self, line: int, level: bool) -> None: ...
    def emit(self, device_id: int, channel: int, data: bytes) -> None: ...
    def consumed(self, device_id: int, channel: int, total: int) -> None: ...
    def signal(self, device_id: int, signal: Signal, value: int) -> None: ...


def places(wiring: DeviceWiring) -> dict[str, int]:
    return {mapped.region.name: mapped.base for mapped in Bus([wiring], Deaf()).mapped()}


def test_an_unnamed_base_places_the_first_region() -> None:
    wiring = DeviceWiring(name="a", kind="debugcon", bases={"": 0x100})
    assert places(wiring) == {"io": 0x100}


def test_an_unnamed_base_stands_beside_named_ones() -> None:
    wiring = DeviceWiring(name="a", kind="debugcon", bases={"": 0x100, "bochs": 0x200})
    assert places(wiring) == {"io": 0x100, "bochs": 0x200}


def test_an_unnamed_line_is_the_only_output_s() -> None:
    wiring = DeviceWiring(name="a", kind="uart16550", bases={"": 0x100}, lines={"": 5})
    (slot,) = Bus([wiring], Deaf()).slots.values()
    assert dict(slot.wiring.lines) == {"irq": 5}


@pytest.mark.parametrize(
    ("wiring", "complaint"),
    [
        (
            DeviceWiring(name="a", kind="debugcon", bases={"": 1, "io": 2}),
            "device 'a': kind 'debugcon': region 'io' is wired twice",
        ),
        (
            DeviceWiring(name="a", kind="debugcon", lines={"": 1}),
            "device 'a': kind 'debugcon': interrupt output wired, but the model has none",
        ),
        (
            DeviceWiring(name="a", kind="testdev", lines={"": 1}),
            "device 'a': kind 'testdev' has several interrupt outputs; name one of: irq0, irq1",
        ),
    ],
)
def test_an_unnamed_wire_that_fits_no_single_place_is_refused(
    wiring: DeviceWiring, complaint: str
) -> None:
    with pytest.raises(BoardError, match=complaint):
        Bus([wiring], Deaf())
