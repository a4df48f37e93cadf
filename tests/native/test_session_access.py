"""The C access path on a session, with late messages, beside the same devices with none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from wire_guest import WireGuest

from devserver.identity import Identity
from devserver.machine.board import PC_BOARD
from devserver.machine.bus import Bus
from devserver.models.device import Space
from devserver.protocol import codec
from devserver.protocol.connection import Connection, Role
from devserver.protocol.messages import Attach, Attached, Hello, Hypervisor, WantedDevice, Welcome
from devserver.session.session import Session

DEVICES = ("com1", "pit", "rtc", "debugcon", "post")
WIRINGS = [wiring for wiring in PC_BOARD if wiring.name in DEVICES]
#: Their interrupts go nowhere: there is no VM here that could be interrupted.
WANTED = [WantedDevice(w.name, w.kind, dict(w.bases), {}, {}) for w in WIRINGS]
EPOCH_NS = 1_700_000_000 * 10**9

PORTS = [*range(0x3F8, 0x400), *range(0x40, 0x44), 0x61, 0x70, 0x71, 0x80, 0xE9]
VALUES = st.sampled_from([0, 1, 2, 3, 7, 0x0B, 0x0C, 0x10, 0x34, 0x36, 0x83, 0xFF]) | st.integers(
    0, 255
)
LATER = st.integers(0, 3000) | st.sampled_from([20_000, 900_000, 60_000_000])
ACCESS = st.tuples(st.sampled_from(["in", "in", "out"]), st.sampled_from(PORTS), VALUES, LATER)
LATCH = st.tuples(st.just("out"), st.just(0x43), st.just(0), LATER)
COUNT = st.tuples(st.just("in"), st.just(0x40), st.just(0), LATER)
TRAVEL = st.tuples(
    st.sampled_from(["flush", "deliver", "take"]), st.just(0), st.just(0), st.just(0)
)
STEPS = st.lists(ACCESS | ACCESS | LATCH | COUNT | COUNT | TRAVEL, max_size=80)


class Nobody:
    """Hears what devices say, and forgets it."""

    def line(self, line: int, level: bool) -> None: ...

    def emit(self, device_id: int, channel: int, data: bytes) -> None: ...

    def consumed(self, device_id: int, channel: int, total: int) -> None: ...

    def signal(self, device_id: int, signal: Any, value: int) -> None: ...


class Remote:
    """A session with these devices, and a guest on it."""

    def __init__(self) -> None:
        self._session = Session(Identity(), itertools.count(1).__next__, "a client")
        client = Connection(Role.CLIENT)
        (welcome,) = self._shake(client, Hello(features=["lease"]))
        attach = Attach(hypervisor=Hypervisor.KVM, epoch_ns=EPOCH_NS, devices=WANTED)
        attached, *early = self._shake(client, attach)
        assert isinstance(welcome, Welcome)
        assert isinstance(attached, Attached)
        identifiers = (welcome.server_id, attached.vm_id, welcome.client_id, Hypervisor.KVM)
        self.guest = WireGuest(attached.devices, self._serve, identifiers)
        self.guest.say([codec.encode(message) for message in early])

    def close(self) -> None:
        self.guest.close()

    def _shake(self, client: Connection, message: Any) -> list[Any]:
        return client.receive(self._session.receive(client.send(message), 0))

    def _serve(self, payload: bytes) -> Sequence[bytes]:
        data = self._session.receive(codec.frame(payload), 0)
        frames = []
        while data:
            end = 4 + int.from_bytes(data[:4], "big")
            frames.append(data[4:end])
            data = data[end:]
        return frames


def beside() -> Bus:
    """The same devices, with nothing between."""
    wirings = [type(w)(name=w.name, kind=w.kind, bases=w.bases) for w in WIRINGS]
    return Bus(wirings, Nobody(), EPOCH_NS)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_guest_on_a_session_reads_what_its_devices_give(
    steps: list[tuple[str, int, int, int]],
) -> None:
    local, now_ns = beside(), 0
    with closing(Remote()) as remote:
        guest = remote.guest
        for what, port, value, later_ns in steps:
            now_ns += later_ns
            if what == "in":
                assert guest.read(port, now_ns) == local.read(Space.PORT, port, 1, now_ns)
            elif what == "out":
                guest.write(port, value, now_ns)
                local.write(Space.PORT, port, 1, value, now_ns)
            else:
                getattr(guest, what)()
