"""The POST code port: a latch on which firmware shows how far it has come.

Source: IBM PC/AT Technical Reference, system board I/O map (port 80h, the manufacturing test
port).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devserver.models.device import Device, Lease, Policy, Region, Register


class PostCode(Device):
    """Every code written goes out on the channel ``code``, one byte each."""

    kind = "postcode"
    emits = ("code",)
    leases_move_with_time = False
    regions = (
        Region(
            name="io",
            size=1,
            registers=(
                Register(
                    offset=0,
                    name="CODE",
                    storage="code",
                    policy=Policy.COALESCED,
                    leased=True,
                    source="PC/AT Technical Reference, port 80h",
                ),
            ),
        ),
    )

    @dataclass
    class State:
        code: int = 0

    state: State

    def write_code(self, value: int, now_ns: int) -> None:
        self.state.code = value
        self.emit("code", bytes((value,)))

    def write_code_run(self, values: bytes, times_ns: Sequence[int]) -> bool:
        self.state.code = values[-1]
        self.emit("code", values)
        return True

    def lease_code(self, now_ns: int) -> Lease:
        return Lease(value=self.state.code, steady=1)  # the port is lane 0, and the only one
