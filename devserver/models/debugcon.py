"""The debug console of virtual machines: text goes out with one OUT, no setup and no polling."""

from __future__ import annotations

from collections.abc import Sequence

from devserver.models.device import Device, Lease, Policy, Region, Register
from devserver.models.lease import LANES

#: What a read answers, so that a guest can tell the console from an empty port. QEMU answers it
#: at every port of its debug console; Bochs at its port E9h.
PRESENT = 0xE9


class DebugConsole(Device):
    """Bytes written to either port go out on the channel ``tx``."""

    kind = "debugcon"
    emits = ("tx",)
    leases_move_with_time = False
    regions = (
        Region(
            name="io",
            size=1,
            registers=(
                Register(
                    offset=0,
                    name="DATA",
                    reset=PRESENT,
                    policy=Policy.COALESCED,
                    leased=True,
                    source="Bochs, 'port E9 hack'; QEMU, isa-debugcon",
                ),
            ),
        ),
        Region(
            name="bochs",
            size=1,
            registers=(
                Register(
                    offset=0,
                    name="DATA",
                    reset=PRESENT,
                    policy=Policy.COALESCED,
                    leased=True,
                    source="Bochs BIOS, information port 402h",
                ),
            ),
        ),
    )

    def read_data(self, now_ns: int) -> int:
        return PRESENT

    def write_data(self, value: int, now_ns: int) -> None:
        self.emit("tx", bytes((value,)))

    def write_data_run(self, values: bytes, times_ns: Sequence[int]) -> bool:
        self.emit("tx", values)
        return True

    def lease_data(self, now_ns: int) -> Lease:
        return Lease(value=PRESENT, unaffected=(1 << LANES) - 1)
