"""A live server among clients that break the rules: it drops those, and serves the others."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import (
    LATCH,
    LATCH_DEVICE,
    TRIAL,
    TRIAL_DEVICE,
    Peer,
    Server,
    memory_of,
    read,
    works,
    write,
)

from devserver.protocol import codec, limits
from devserver.protocol.connection import State, blank
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import (
    Attach,
    Clock,
    Emit,
    Event,
    EventKind,
    Feedback,
    Finish,
    Hello,
    Interrupt,
    Message,
    Ping,
    Pong,
    Status,
    WantedDevice,
    Welcome,
)

pytestmark = pytest.mark.process

DELAY, FAIL, BIG = TRIAL + 2, TRIAL + 4, TRIAL + 5

LIVE = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def framed(message: Message) -> bytes:
    return codec.frame(codec.encode(message))


# -- two clients ----------------------------------------------------------------------------------


def test_each_client_has_identities_and_devices_of_its_own(server: Server) -> None:
    with Peer(server) as one, Peer(server) as two:
        vms = {peer.attach(LATCH_DEVICE).vm_id for peer in (one, two)}
        assert len(vms) == 2
        assert one.connection.client_id != two.connection.client_id
        one.say(write(LATCH, 0x11, 4))
        two.say(write(LATCH, 0x22, 4))
        for peer, value in ((one, 0x11), (two, 0x22)):
            peer.expect(Finish)
            peer.say(read(LATCH, 4))
            assert peer.expect(Feedback).data == value.to_bytes(4, "little")


def test_a_deadline_is_met_with_nobody_asking(server: Server) -> None:
    with Peer(server) as peer:
        peer.attach(TRIAL_DEVICE)
        peer.say(write(DELAY, 5))
        peer.expect(Finish)
        assert peer.expect(Interrupt).level == 1


def test_a_model_that_fails_stops_its_own_vm_only(server: Server, bystander: Peer) -> None:
    with Peer(server) as peer:
        peer.attach(TRIAL_DEVICE)
        peer.say(read(FAIL))
        assert peer.expect(Event).kind == EventKind.FAULT
        assert peer.expect(Feedback).status == Status.FAULT
        peer.say(Ping(1))
        assert peer.expect(Pong).token == 1
    assert works(bystander)


# -- clients that break the rules -----------------------------------------------------------------


@LIVE
@given(st.binary(min_size=1, max_size=300))
def test_random_bytes_end_their_own_connection_only(
    server: Server, bystander: Peer, data: bytes
) -> None:
    with Peer(server) as peer:
        peer.sock.sendall(data)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.closed()
    assert works(bystander)


@LIVE
@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_in_a_good_frame_do_no_more(
    server: Server, bystander: Peer, data: bytes
) -> None:
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        peer.sock.sendall(codec.frame(data))
        peer.sock.shutdown(socket.SHUT_WR)
        peer.closed()
    assert works(bystander)


@LIVE
@given(st.integers(0, 140), st.integers(1, 255))
def test_a_damaged_request_does_no_more(
    server: Server, bystander: Peer, at: int, flipped: int
) -> None:
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        stream = bytearray(peer.connection.send(write(LATCH, 1, 4)) + peer.connection.send(Ping(1)))
        stream[at % len(stream)] ^= flipped
        peer.sock.sendall(stream)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.closed()
    assert works(bystander)


MISTAKES: dict[str, tuple[bytes, ErrorCode]] = {
    "oversized frame": ((limits.MAX_FRAME_BYTES + 1).to_bytes(4), ErrorCode.MALFORMED),
    "largest length": (b"\xff\xff\xff\xff", ErrorCode.MALFORMED),
    "empty frame": (bytes(4), ErrorCode.MALFORMED),
    "not msgpack": (codec.frame(b"\xc1"), ErrorCode.MALFORMED),
    "unknown type": (codec.frame(b"\x92\x63\x80"), ErrorCode.MALFORMED),
    "message cut short": (codec.frame(b"\x92\x01"), ErrorCode.MALFORMED),
    "not an array": (codec.frame(b"\x80"), ErrorCode.MALFORMED),
    "another version": (framed(Hello(version=1)), ErrorCode.VERSION),
    "no greeting": (framed(Attach(1)), ErrorCode.STATE),
    "a server's message": (framed(Welcome(1, 1, 1, 1)), ErrorCode.STATE),
    "a flood of greetings": (codec.frame(codec.encode(Hello()) * 5000), ErrorCode.STATE),
    "web client": (b"GET / HTTP/1.1\r\n\r\n", ErrorCode.MALFORMED),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_at_the_door_is_named(server: Server, bystander: Peer, mistake: str) -> None:
    data, code = MISTAKES[mistake]
    with Peer(server) as peer:
        peer.connection.state = State.READY  # so that it takes whatever is said
        peer.sock.sendall(data)
        said = codec.FrameReader().feed(peer.closed())
        last = codec.decode(said[-1])[-1]
        assert getattr(last, "code", None) == code
    assert works(bystander)


def attached_mistakes() -> dict[str, tuple[Callable[[Peer], bytes], ErrorCode]]:
    def changed(**fields: int) -> Callable[[Peer], bytes]:
        return lambda peer: framed(peer.connection.stamp(read(LATCH))._replace(**fields))

    return {
        "number out of turn": (changed(seq=9), ErrorCode.SEQUENCE),
        "acknowledges too much": (changed(ack=9), ErrorCode.SEQUENCE),
        "another server": (changed(server_id=9), ErrorCode.IDENTITY),
        "another VM": (changed(vm_id=999), ErrorCode.IDENTITY),
        "another hypervisor": (changed(hypervisor=9), ErrorCode.IDENTITY),
        "another client": (changed(client_id=999), ErrorCode.IDENTITY),
        "another device": (changed(device_id=2), ErrorCode.DEVICE),
        "another address": (changed(address=LATCH + 4), ErrorCode.DEVICE),
        "another space": (changed(space=1), ErrorCode.DEVICE),
        "strange size": (changed(size=3), ErrorCode.MALFORMED),
        "no elements": (changed(elements=0), ErrorCode.MALFORMED),
        "strange direction": (changed(direction=2), ErrorCode.MALFORMED),
        "a year ahead": (changed(time_ns=365 * 86400 * 10**9), ErrorCode.MALFORMED),
        "the end of time": (changed(time_ns=(1 << 64) - 1), ErrorCode.MALFORMED),
    }


@pytest.mark.parametrize("mistake", attached_mistakes())
@pytest.mark.parametrize("warm", [False, True], ids=["first request", "in full flight"])
def test_a_mistake_of_an_attached_client_is_named(
    server: Server, bystander: Peer, mistake: str, warm: bool
) -> None:
    make, code = attached_mistakes()[mistake]
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        if warm:
            assert works(peer)
        peer.sock.sendall(make(peer))
        assert peer.refused() is code
    assert works(bystander)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 60, 111])
def test_a_client_that_dies_within_a_frame_is_forgotten(
    server: Server, bystander: Peer, length: int
) -> None:
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        peer.sock.sendall(peer.connection.send(read(LATCH))[:length])
        # on TCP, closing resets the connection, as the end of a process with unread input does
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert works(bystander)


def test_a_frame_that_comes_byte_by_byte_is_served(server: Server) -> None:
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        for byte in peer.connection.send(write(LATCH, 7, 4)):
            peer.sock.send(bytes((byte,)))
        peer.expect(Finish)


# -- clients that are in the way ------------------------------------------------------------------


@pytest.mark.parametrize("question", [read(LATCH), read(LATCH, elements=2), Ping(1)])
def test_a_client_that_can_t_be_answered_ends_alone(
    server: Server, bystander: Peer, question: Message
) -> None:
    """On a Unix socket its answer meets a closed pipe, while the server polls it for more."""
    for _ in range(5):
        with Peer(server) as peer:
            peer.attach(LATCH_DEVICE)
            assert works(peer)
            peer.sock.shutdown(socket.SHUT_RD)
            peer.say(question)
    assert works(bystander)


def test_a_client_that_does_not_read_is_waited_for_while_others_are_served(
    server: Server, bystander: Peer
) -> None:
    with Peer(server) as peer:
        peer.attach(TRIAL_DEVICE)
        peer.say(*[write(BIG, 100)] * 30)  # 3 MB: more than sockets hold
        for value in range(20):
            assert works(bystander, value)
        emitted, finished = 0, 0
        while finished < 30:
            message = peer.hear()
            emitted += len(message.data) if isinstance(message, Emit) else 0
            finished += isinstance(message, Finish)
        assert emitted == 3_000_000


def test_nothing_more_is_done_for_a_client_until_it_has_read(
    server: Server, bystander: Peer
) -> None:
    with Peer(server) as peer:
        peer.attach(TRIAL_DEVICE)
        before = memory_of(server)
        peer.say(*[write(BIG, 250)] * 100)  # 25 MB in one go
        assert works(bystander)
        assert memory_of(server) - before < 12_000_000
        emitted, finished = 0, 0
        while finished < 100:
            message = peer.hear()
            emitted += len(message.data) if isinstance(message, Emit) else 0
            finished += isinstance(message, Finish)
        assert emitted == 25_000_000


def test_a_client_that_asks_without_a_pause_does_not_keep_the_server_to_itself(
    server: Server,
) -> None:
    stop = threading.Event()
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        flood = threading.Thread(target=_flood, args=(peer.sock, stop))
        flood.start()
        try:
            with Peer(server) as other:
                other.attach(TRIAL_DEVICE)
                other.say(write(DELAY, 1))
                other.expect(Finish)
                other.expect(Interrupt)
        finally:
            stop.set()
            flood.join()


def _flood(sock: socket.socket, stop: threading.Event) -> None:
    """Asks for signs of life, always with some more on the way than are answered."""
    ask = framed(Ping(0)) * 3000  # 45 kB: a server takes less at a time
    sock.sendall(ask)
    while not stop.is_set():
        sock.sendall(ask)
        wanted = 3000 * len(codec.encode(Pong(0, 0)))  # or more: it chooses the frames
        while wanted > 0:
            wanted -= len(sock.recv(65536))


def test_a_stopped_clock_is_no_hindrance(server: Server) -> None:
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        peer.say(blank(Clock, running=0, time_ns=5))
        assert works(peer)
        peer.say(blank(Clock, running=1, time_ns=5))
        assert works(peer)


def test_a_machine_that_can_t_be_built_is_refused(server: Server, bystander: Peer) -> None:
    with Peer(server) as peer:
        peer.say(Hello())
        peer.expect(Welcome)
        peer.say(Attach(1, devices=[WantedDevice("a", "nothing")]))
        assert peer.refused() is ErrorCode.MACHINE
    assert works(bystander)
