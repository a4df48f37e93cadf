"""A packet under a wrong name, on a live server: refused, and nobody is harmed."""

from __future__ import annotations

import pytest
from live import LATCH, LATCH_DEVICE, Peer, Server, read, works

from devserver.protocol import codec
from devserver.protocol.errors import ErrorCode


@pytest.mark.process
@pytest.mark.parametrize("name", ["server_id", "vm_id", "hypervisor", "client_id"])
def test_a_packet_under_a_wrong_name_is_refused_and_harms_nobody(
    server: Server, bystander: Peer, name: str
) -> None:
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        request = peer.connection.stamp(read(LATCH))
        wrong = request._replace(**{name: getattr(request, name) ^ 1})
        peer.sock.sendall(codec.frame(codec.encode(wrong)))
        assert peer.refused() is ErrorCode.IDENTITY
    assert works(bystander)
