"""The debug exit: a guest ends its machine with one OUT, whose value is the exit status."""

from __future__ import annotations

from devserver.models.device import Device, Region, Register, Signal


class DebugExit(Device):
    """A write raises :attr:`Signal.EXIT` once, whatever its width, with the value written.

    The port is one register of four bytes: a write above offset 0 gives its place in those bytes
    to the value.
    """

    kind = "debugexit"
    regions = (
        Region(
            name="io",
            size=4,
            registers=(Register(offset=0, name="STATUS", width=4, source="QEMU, isa-debug-exit"),),
        ),
    )

    def read_status(self, now_ns: int) -> int:
        return 0

    def write_status(self, value: int, now_ns: int) -> None:
        self.signal(Signal.EXIT, value)
