"""Every message flooded, read and unread, beside a client that asks for little."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable

import pytest
from live import LATCH_DEVICE, Peer, Server, memory_of, works

from kvmshim.bench.fairness import FLOODED, FLOODS, flood
from kvmshim.bench.throughput import client_of

pytestmark = [pytest.mark.process, pytest.mark.soak]

SOAK_S = 8.0
#: What a server may have more in the end than when the flood was young.
FLAT_BYTES = 16 << 20


def flood_unread(address: str, kind: str) -> None:
    """Sends and never reads, until it is killed or thrown out."""
    with client_of(address, 1, FLOODED) as flooder:
        flooder.sock.settimeout(None)
        _, messages = FLOODS[kind]
        for number in itertools.count():
            flooder.sock.sendall(flooder.connection.send(*messages(number)))


@pytest.mark.parametrize("engine", ["native", "python"])
@pytest.mark.parametrize("how", [flood, flood_unread])
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_costs_others_little_and_memory_stays_flat(
    where: str, kind: str, how: Callable[[str, str], None], engine: str
) -> None:
    spawn = multiprocessing.get_context("spawn")
    with Server("--engine", engine, listen=where) as server, Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        floods = [spawn.Process(target=how, args=(server.address, kind)) for _ in range(2)]
        for process in floods:
            process.start()
        try:
            middle, end = time.monotonic() + SOAK_S / 2, time.monotonic() + SOAK_S
            before = 0
            for value in itertools.count():
                assert works(peer, value & 0xFFFFFFFF)
                if not before and time.monotonic() > middle:
                    before = memory_of(server)
                if time.monotonic() > end:
                    break
            assert memory_of(server) - before < FLAT_BYTES
        finally:
            for process in floods:
                process.kill()
                process.join()
        assert works(peer)
