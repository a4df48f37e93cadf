"""Connections that take their time: they hold nobody's place, and cost no threads."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from live import AT_MOST_S, LATCH_DEVICE, Peer, Server, works

from devserver.protocol import limits
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import Error, Hello, Join, Ping, Welcome

HELLO = Connection(Role.CLIENT).send(Hello(name="slow"))
#: A Unix socket takes fewer at a time.
ANYWHERE = "tcp://127.0.0.1:0"
#: Handshakes that a server of so many places has under way at most.
PLACES, OPENING = 160, 20
CROWDED = partial(Server, "--max-clients", PLACES, listen=ANYWHERE)


@pytest.mark.parametrize("engine", ["native", "python"])
def test_a_handshake_has_a_deadline_that_single_bytes_don_t_put_off(
    where: str, engine: str
) -> None:
    times = ("--heartbeat", 0.1, "--deadline", 0.5)
    with Server("--engine", engine, *times, listen=where) as server, Peer(server) as peer:
        trickled = 0
        while not select.select([peer.sock], [], [], 0.05)[0]:
            peer.sock.send(HELLO[trickled : trickled + 1])
            trickled += 1
        assert 0 < trickled < len(HELLO)
        assert peer.refused() is ErrorCode.TIMEOUT


def test_one_that_only_says_hello_has_not_done_its_handshake(where: str) -> None:
    times = ("--heartbeat", 0.1, "--deadline", 0.5)
    with Server(*times, listen=where) as server, Peer(server) as peer:
        peer.say(Hello())
        peer.expect(Welcome)
        while isinstance(message := peer.hear(), Ping):  # however lively it is
            peer.say(peer.connection.pong(message.token))
        assert isinstance(message, Error)
        assert message.message == "its handshake took more than 0.5 s"


def test_many_slow_handshakes_shut_nobody_out() -> None:
    with (
        Server("--max-clients", PLACES, listen=ANYWHERE) as server,
        contextlib.ExitStack() as stack,
    ):
        slow = [stack.enter_context(Peer(server)) for _ in range(2 * PLACES)]
        for peer in slow:
            with contextlib.suppress(OSError):
                peer.sock.send(HELLO[:5])
        with Peer(server) as peer:
            peer.attach(LATCH_DEVICE)
            assert works(peer)
        assert slow[0].refused() is ErrorCode.TIMEOUT


def test_those_who_are_attached_are_not_driven_out() -> None:
    with (
        Server("--max-clients", PLACES, listen=ANYWHERE) as server,
        contextlib.ExitStack() as stack,
    ):
        first = stack.enter_context(Peer(server))
        first.attach(LATCH_DEVICE)
        for _ in range(2 * OPENING):
            stack.enter_context(Peer(server))
        assert works(first)


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """An address at which somebody listens and never answers: who connects waits."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # more than the kernel takes for it
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(listener.getsockname())
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def threads_of(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])


def test_a_server_that_does_not_answer_costs_few_threads() -> None:
    with (
        deaf() as nowhere,
        Server("--max-clients", 4000, "--route", "relay", listen=ANYWHERE) as server,
        contextlib.ExitStack() as stack,
    ):
        member = stack.enter_context(Peer(server))
        member.say(Join(limits.PROTOCOL_VERSION, "deaf", nowhere))
        wanted = member.expect(Welcome).server_id
        before = threads_of(server)
        lost = [stack.enter_context(Peer(server)) for _ in range(300)]
        for peer in lost:
            peer.say(Hello(server_id=wanted))
        with Peer(server) as peer:
            peer.attach(LATCH_DEVICE)
            assert works(peer)
        assert threads_of(server) - before <= 17
        (sock, *_), _, _ = select.select([peer.sock for peer in lost], [], [], AT_MOST_S)
        (peer,) = (peer for peer in lost if peer.sock is sock)
        assert "I/O server 'deaf' at tcp://127.0.0.1" in peer.expect(Error).message
