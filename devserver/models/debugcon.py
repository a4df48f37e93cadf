"""The debug console of virtual machines: text goes out with one OUT, no setup and no polling."""

from __future__ import annotations

from devserver.models.device import Device, Policy, Region, Register

#: What a read answers, so that a guest can tell the console from an empty port. QEMU answers it
#: at every port of its debug console; Bochs at its port E9h.
PRESENT = 0xE9


class DebugConsole(Device):
    """Bytes written to either port go out on the channel ``tx``."""

    kind = "debugcon"
    emits = ("tx",)
    regions = (
        Region(
            name="io",
            size=1,
            registers=(
                Register(
                    offset=0,
                    name="DATA",
                    reset=PRESENT,
                    policy=Policy.POSTED,
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
                    policy=Policy.POSTED,
                    source="Bochs BIOS, information port 402h",
                ),
            ),
        ),
    )

    def read_data(self, now_ns: int) -> int:
        return PRESENT

    def write_data(self, value: int, now_ns: int) -> None:
        self.emit("tx", bytes((value,)))
