"""The relay between real sockets, moved on by the test itself."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from kvmshim.lab.delayline import DelayLine
from kvmshim.lab.relay import Relay

AT_MOST_S = 20.0
DELAY_NS = 1_000_000
CAPACITY_BYTES = 50_000
#: More than all socket buffers on the way hold.
FLOOD_BYTES = 64 << 20


class Way:
    """A relay with a client at one end and a server's listening socket at the other."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.listener = stack.enter_context(_small_listener())
        entrance = _small_listener()
        where = entrance.getsockname()[:2]
        self.relay = Relay(
            entrance, self.listener.getsockname()[:2], lambda: DelayLine(DELAY_NS, CAPACITY_BYTES)
        )
        stack.callback(self.relay.close)
        self.client = stack.enter_context(socket.create_connection(where))
        self.client.setblocking(False)
        self._stack = stack

    def server_end(self) -> socket.socket:
        """The connection that comes out at the far end."""
        self.until(lambda: _attempt(self._accept))
        return self._accepted

    def _accept(self) -> bytes:
        self._accepted = self._stack.enter_context(self.listener.accept()[0])
        self._accepted.setblocking(False)
        return b"came"

    def until(self, done: Callable[[], object]) -> None:
        """Moves the relay on until something is so."""
        deadline = time.monotonic() + AT_MOST_S
        while not done():
            assert time.monotonic() < deadline
            self.relay.step(longest_s=0.01)

    def receive(self, sock: socket.socket, length: int) -> bytes:
        """So many bytes, or fewer if the stream ends before."""
        data = bytearray()
        ended = False

        def read() -> bool:
            nonlocal ended
            part = _attempt(lambda: sock.recv(1 << 16))
            ended = part == b""
            data.extend(part or b"")
            return ended or len(data) >= length

        self.until(read)
        return bytes(data)


def _small_listener() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def _attempt(action: Callable[[], bytes]) -> bytes | None:
    """What an action on a socket gives; None if it would have to wait."""
    try:
        return action()
    except BlockingIOError:
        return None


@pytest.fixture
def way() -> Iterator[Way]:
    with contextlib.ExitStack() as stack:
        yield Way(stack)


def test_a_round_trip_takes_at_least_the_delay_of_both_directions(way: Way) -> None:
    server = way.server_end()
    before_ns = time.monotonic_ns()
    way.client.send(b"question")
    assert way.receive(server, 8) == b"question"
    server.send(b"answer")
    assert way.receive(way.client, 6) == b"answer"
    assert time.monotonic_ns() - before_ns >= 2 * DELAY_NS


def test_a_client_that_ends_its_stream_still_gets_the_answer(way: Way) -> None:
    server = way.server_end()
    way.client.send(b"question")
    way.client.shutdown(socket.SHUT_WR)
    assert way.receive(server, 1000) == b"question"  # and the end
    server.send(b"answer")
    server.close()
    assert way.receive(way.client, 1000) == b"answer"


def test_a_flood_stops_at_a_stalled_reader_and_goes_on_with_it(way: Way) -> None:
    server = way.server_end()
    sent = 0
    block = bytes(range(256)) * 256

    def flood() -> bool:
        """Sends; whether the way has been full for the relay's last moves."""
        nonlocal sent
        try:
            sent += way.client.send(block[sent % 256 :])
        except BlockingIOError:
            return True
        assert sent < FLOOD_BYTES
        return False

    for _ in range(20):  # as long as it moves on, there is room again
        way.until(flood)
    received = way.receive(server, sent)
    assert received == (block * (sent // len(block) + 1))[:sent]


def test_a_reset_reaches_the_other_end(way: Way) -> None:
    server = way.server_end()
    linger_not = b"\1\0\0\0\0\0\0\0"  # struct linger: on, no time, so that close() resets
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
    server.close()
    assert way.receive(way.client, 1) == b""


def test_a_client_without_a_server_is_hung_up_on(way: Way) -> None:
    way.listener.close()
    assert way.receive(way.client, 1) == b""
