"""The load generator (``native/src/bench/load.c``) against a live server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from live import LATCH, LATCH_DEVICE, Peer, Server, works

from kvmshim.abi import ffi, lib

pytestmark = pytest.mark.process

CLIENTS = 3
WRITE, READ = 1, 0


def load(peers: list[Peer], directions: list[int], batch: int, spin: bool = False) -> Any:
    """Runs a load of accesses to the latch for 5 ms; its result."""
    clients = ffi.new("struct load_client[]", len(peers))
    for client, peer in zip(clients, peers, strict=True):
        connection = peer.connection
        client.fd, client.window = peer.sock.fileno(), connection.window
        client.server_id, client.vm_id = connection.server_id, connection.vm_id
        client.client_id, client.hypervisor = connection.client_id, connection.hypervisor
        client.sent, client.received = connection.sent, connection.received
        client.clock_start_ns = time.monotonic_ns()
    accesses = ffi.new("struct load_access[]", [(1, way, 0, 4, LATCH, 7) for way in directions])
    plan = ffi.new("struct load_plan *", (accesses, len(directions), batch, spin, 5_000_000))
    result = ffi.new("struct load_result *")
    assert lib.load_run(clients, len(peers), plan, result) == 0, ffi.errno
    for client, peer in zip(clients, peers, strict=True):
        peer.connection.counters[:2] = [client.sent, client.received]
    return result


@pytest.mark.parametrize(("batch", "spin"), [(0, False), (0, True), (1, False), (64, False)])
@pytest.mark.parametrize("directions", [[WRITE], [READ], [WRITE, READ]])
def test_a_load_is_served_and_counted(
    server: Server, directions: list[int], batch: int, spin: bool
) -> None:
    peers = [Peer(server) for _ in range(CLIENTS)]
    try:
        for peer in peers:
            peer.attach(LATCH_DEVICE)
        result = load(peers, directions, batch, spin)
        assert result.total >= CLIENTS * max(batch, 1)
        assert result.done <= result.total
        assert result.elapsed_ns >= 5_000_000
        assert all(works(peer) for peer in peers)  # the numbers go on
    finally:
        for peer in peers:
            peer.sock.close()
