"""The data loop in C says, byte for byte, what the session alone says, however a stream is cut."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_rig import BASE, SECOND, TRIAL, feed, posted, read, request, write
from test_session_properties import BYTES, MESSAGES, TIMES
from trial_device import BIG, COUNT, FAIL, IRQ, ROOM, TIME, VALUE

from devserver.host.client import Client, LoopEventKind
from devserver.host.loop_native import NativeLoop
from devserver.identity import Identity
from devserver.protocol import codec, limits
from devserver.protocol.connection import Connection, Role, blank
from devserver.protocol.messages import (
    Attach,
    Attached,
    Batch,
    Clock,
    Detach,
    Direction,
    Event,
    Hello,
    Hypervisor,
    Message,
    Ping,
    WantedDevice,
    Welcome,
    Write,
)
from devserver.session.session import Session
from devserver.session.vm_table import VmTable

IDENTITY = Identity(window=40)
#: A turn in which everything is done.
AT_ONCE_NS = 10**12
#: What a socket takes for sure before it is read.
SOCKET_BYTES = 100_000


def new_session(may_share: bool = False) -> Session:
    """One whose numbers and key are the same each time."""
    allot_id = itertools.count(1).__next__
    vms = VmTable(allot_id, make_key=lambda: "a key")
    return Session(IDENTITY, allot_id, "a client", vms, may_share=may_share)


class Native:
    """A session that is served by the loop in C, through a socket."""

    def __init__(self) -> None:
        self.session = new_session()
        self.near, far = socket.socketpair()
        self.near.setblocking(False)
        far.setblocking(False)
        self.client = Client(far, self.session, 0)
        self.loop = NativeLoop("block", lambda client: 0, turn_ns=AT_ONCE_NS)
        self.loop.add(self.client)
        self.gone = False

    def receive(self, data: bytes) -> bytes:
        """Gives the server bytes; returns what it says."""
        said = b""
        if not self.gone:
            self.near.sendall(data)
        while more := self._turn():
            said += more
        return said

    def _turn(self) -> bytes:
        """What the server says when there is time for nothing else."""
        for _ in range(2):  # it is told first that it is late, and then serves
            if not self.gone:
                self.gone = self.loop.run_once(0).what is LoopEventKind.GONE
        try:
            return self.near.recv(1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.loop.remove(self.client)
        self.loop.close()
        self.client.sock.close()
        self.near.close()


@contextmanager
def both() -> Iterator[tuple[Session, Native]]:
    """A session alone, and one in the loop."""
    native = Native()
    try:
        yield new_session(), native
    finally:
        native.close()


def attached_client(*devices: WantedDevice) -> tuple[Connection, bytes]:
    """A client that has just started its clock, and all that it has said until then."""
    client = Connection(Role.CLIENT)
    said = client.send(Hello(features=["lease"]))
    client.receive(codec.frame(codec.encode(Welcome(limits.PROTOCOL_VERSION, 1, 1, epoch=2))))
    said += client.send(Attach(Hypervisor.KVM, devices=list(devices or (TRIAL, SECOND))))
    client.receive(codec.frame(codec.encode(Attached(3, window=IDENTITY.window))))
    return client, said + client.send(blank(Clock, running=1, time_ns=0))


PLACES = st.sampled_from([(VALUE, 1), (VALUE, 4), (IRQ, 1), (ROOM, 1), (COUNT, 8), (COUNT, 2)])
ENTRIES = st.builds(
    lambda place, direction, value, at: Write(
        1, direction, 0, BASE + place[0], place[1], at, value
    ),
    PLACES,
    st.sampled_from([1, 1, 1, 0]),
    st.integers(0, (1 << 64) - 1),
    TIMES,
)
BATCHES = st.lists(ENTRIES, max_size=16).map(lambda writes: blank(Batch, writes=tuple(writes)))
MISTAKES: list[Message] = [
    read(VALUE, device_id=2),
    read(VALUE, 3),
    read(VALUE, direction=7),
    read(VALUE, time_ns=1 << 63),
    write(COUNT, 1, 8)._replace(address=(1 << 64) - 1),
    blank(Batch, writes=(Write(1, 1, 0, BASE + IRQ, 1, 0, 1), Write(2, 1, 0, BASE, 1, 0, 0))),
    blank(Batch, writes=(Write(1, 1, 0, BASE + IRQ, 1, 0, 1), Write(1, 2, 0, BASE, 1, 0, 0))),
    blank(Batch, writes=(Write(1, 1, 0, BASE + VALUE, 1, 1 << 62, 0),)),
    posted(VALUE, *range(IDENTITY.window + 1)),
    Attach(1),
    blank(Detach),
]


def said_wrongly(client: Connection, message: Message) -> bytes:
    """A frame with a message, whether it may be said now or not, and one behind it."""
    stamped = message if isinstance(message, Attach) else client.stamp(message)
    return codec.frame(codec.encode(stamped) + codec.encode(Ping(3)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.one_of(MESSAGES, BATCHES), min_size=1, max_size=4), max_size=8),
    st.sampled_from([None, *MISTAKES]) | st.binary(min_size=1, max_size=60),
    st.data(),
)
def test_both_say_the_same_bytes_however_the_stream_is_cut(
    frames: list[list[Message]], last: Message | bytes | None, data: st.DataObject
) -> None:
    client, stream = attached_client()
    stream += b"".join(client.send(*frame) for frame in frames)
    if last is not None:
        stream += last if isinstance(last, bytes) else said_wrongly(client, last)
    with both() as (alone, native):
        while stream and not alone.finished:
            length = data.draw(st.sampled_from([1, 50, 112, 1000]) | st.integers(1, 700))
            part, stream = stream[:length], stream[length:]
            expected, said = alone.receive(part, time.monotonic_ns()), native.receive(part)
            if native.gone and len(expected) > SOCKET_BYTES:  # it is not waited for
                expected = expected[: len(said)]
            assert said == expected
        assert native.gone == alone.finished


PC = [
    WantedDevice("com1", "uart16550", {"io": 0x3F8}, {"irq": 4}),
    WantedDevice("timer", "pit8254", {"": 0x40}, {"": 0}),
    WantedDevice("clock", "mc146818", {"": 0x70}, {"": 8}),
    WantedDevice("console", "debugcon", {"io": 0xE9}),
]
PC_PORTS = [
    *[(1, 0x3F8 + offset) for offset in range(8)],
    *[(2, 0x40 + offset) for offset in range(4)],
    *[(3, 0x70 + offset) for offset in range(2)],
    (4, 0xE9),
]
AT_A_PC = st.tuples(st.sampled_from(PC_PORTS), st.sampled_from([0, 1]), BYTES, TIMES)
PC_REQUESTS = AT_A_PC.map(
    lambda at: request(
        Direction(at[1]), at[0][1], device_id=at[0][0], data=bytes([at[2]])[: at[1]], time_ns=at[3]
    )
)
PC_BATCHES = st.lists(AT_A_PC, min_size=1, max_size=12).map(
    lambda all_at: blank(
        Batch, writes=tuple(Write(at[0], way, 0, at[1], 1, t, v) for at, way, v, t in all_at)
    )
)
PC_RUNS = st.builds(
    lambda at, text, t: blank(
        Batch, writes=tuple(Write(at[0], 1, 0, at[1], 1, t + n, v) for n, v in enumerate(text))
    ),
    st.sampled_from([PC_PORTS[0], PC_PORTS[-1], PC_PORTS[7]]),
    st.binary(min_size=2, max_size=20),
    TIMES,
)
PC_FEEDS = st.builds(lambda data, t: feed(data, time_ns=t), st.binary(max_size=20), TIMES)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(PC_REQUESTS, PC_BATCHES, PC_RUNS, PC_FEEDS), min_size=1, max_size=4),
        max_size=12,
    ),
    st.data(),
)
def test_both_say_the_same_of_a_pc_s_devices_and_their_leases(
    frames: list[list[Message]], data: st.DataObject
) -> None:
    client, stream = attached_client(*PC)
    stream += b"".join(client.send(*frame) for frame in frames)
    with both() as (alone, native):
        while stream and not alone.finished:
            length = data.draw(st.sampled_from([112, 1000, 3000]))
            part, stream = stream[:length], stream[length:]
            assert native.receive(part) == alone.receive(part, time.monotonic_ns())
        assert native.gone == alone.finished


@pytest.mark.parametrize(
    "failing",
    [
        [read(FAIL)],
        [write(FAIL, 1)],
        [blank(Batch, writes=tuple(Write(1, 1, 0, BASE + at, 1, 0, 1) for at in (0, FAIL, IRQ)))],
        [posted(FAIL, 1, 2, 3)],
    ],
)
def test_a_model_fails_alike(failing: list[Message]) -> None:
    client, stream = attached_client()
    stream += client.send(*failing, read(COUNT), posted(VALUE, 1), Ping(4))
    with both() as (alone, native):
        ones = [native.receive(stream), alone.receive(stream, time.monotonic_ns())]
    told = [[m for f in codec.FrameReader().feed(said) for m in codec.decode(f)] for said in ones]
    for messages in told:
        for index, message in enumerate(messages):
            if isinstance(message, Event):  # the traceback leads through another file
                messages[index] = message._replace(text=message.text.partition("\n")[0])
    assert told[0] == told[1]
    assert any(isinstance(message, Event) for message in told[0])


def test_more_than_a_socket_holds_is_said_alike() -> None:
    client, stream = attached_client()
    stream += client.send(*[write(BIG, 250)] * 6, read(TIME, 8, time_ns=5))
    with both() as (alone, native):
        assert native.receive(stream) == alone.receive(stream, time.monotonic_ns())
