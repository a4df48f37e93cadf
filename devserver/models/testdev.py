"""The test device that the public KVM unit tests expect: a latch, and interrupt lines by hand.

Source: the behaviour of QEMU's pc-testdev, seen through its qtest protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partialmethod

from devserver.models.device import Device, Region, Register

LINES = 24


class TestDevice(Device):
    """``latch`` holds four bytes, in all widths at any offset. Port n of ``lines`` drives the
    output ``irq<n>``: high for a byte other than 0. A wider write drives successive lines."""

    __test__ = False  # its name makes pytest take it for a class of tests

    kind = "testdev"
    outputs = tuple(f"irq{line}" for line in range(LINES))
    regions = (
        Region(
            name="latch",
            size=4,
            registers=(
                Register(offset=0, name="LATCH", width=4, storage="latch", source="pc-testdev"),
            ),
        ),
        Region(
            name="lines",
            size=LINES,
            registers=tuple(
                Register(offset=line, name=f"IRQ{line}", source="pc-testdev")
                for line in range(LINES)
            ),
        ),
    )

    @dataclass
    class State:
        latch: int = 0

    state: State

    def _read_line(self, now_ns: int) -> int:
        return 0

    def _write_line(self, line: int, value: int, now_ns: int) -> None:
        self.set_line(f"irq{line}", value != 0)


for _line in range(LINES):
    setattr(TestDevice, f"read_irq{_line}", TestDevice._read_line)
    setattr(TestDevice, f"write_irq{_line}", partialmethod(TestDevice._write_line, _line))
