"""A device that talks by itself, and a client that never reads."""

from __future__ import annotations

import select
from pathlib import Path

import pytest
from live import AT_MOST_S, LATCH_DEVICE, Peer, Server, memory_of, works

from devserver.protocol.messages import WantedDevice

pytestmark = pytest.mark.process

#: Says 100 kB every millisecond, whether anybody asks or not.
CHATTER = """
from dataclasses import dataclass

from devserver.models import Device


class Chatter(Device):
    kind = "chatter"
    emits = ("out",)

    @dataclass
    class State:
        due_ns: int = 1_000_000

    def deadline_ns(self):
        return self.state.due_ns

    def advance(self, now_ns):
        self.state.due_ns = now_ns + 1_000_000
        self.emit("out", bytes(100_000))
"""
#: What waits for a client at most.
MOST_BYTES = 8 << 20


@pytest.mark.parametrize("engine", ["native", "python"])
def test_who_never_reads_what_devices_say_by_themselves_is_dropped(
    engine: str, tmp_path: Path
) -> None:
    model = tmp_path / "chatter.py"
    model.write_text(CHATTER)
    with (
        Server("--engine", engine, "--model", model, listen=f"unix:{tmp_path}/server") as server,
        Peer(server) as other,
    ):
        other.attach(LATCH_DEVICE)
        before = memory_of(server)
        with Peer(server) as peer:
            peer.attach(WantedDevice("chatter", "chatter"))
            hung_up = select.poll()
            hung_up.register(peer.sock, 0)  # of the end only, not of what could be read
            assert hung_up.poll(AT_MOST_S * 1000)
            assert len(peer.closed()) < MOST_BYTES
        assert works(other)
        assert memory_of(server) - before < 3 * MOST_BYTES
