"""A client whose bytes move into memory in the middle of a busy time is heard there."""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest
from test_session_engines import PC, new_session

from devserver.host.client import Client
from devserver.host.loop_native import NativeLoop
from devserver.protocol import codec
from devserver.protocol.greetings import LEASES, SHARED_MEMORY
from devserver.protocol.messages import Attach, Hello, Hypervisor, Message, Ping, Pong

#: The layout that docs/protocol.md gives.
RING_BYTES = 256 * 1024
FROM_SERVER = 128
FROM_CLIENT = FROM_SERVER + 128 + RING_BYTES
COUNTERS = 128


class Pair:
    """A session served by the loop in C, and its client's end of the socket."""

    def __init__(self, loop: NativeLoop) -> None:
        self.session = new_session(may_share=True)
        self.near, far = socket.socketpair()
        self.near.setblocking(False)
        far.setblocking(False)
        self.client = Client(far, self.session, 0)
        loop.add(self.client)

    def memory(self) -> mmap.mmap:
        """What comes with ATTACHED."""
        said, fds = b"WELCOME", []
        while said and not fds:
            said, fds, _, _ = socket.recv_fds(self.near, 1 << 16, 1)
        memory = mmap.mmap(fds[0], 0)
        os.close(fds[0])
        return memory


@pytest.fixture
def loop() -> Iterator[NativeLoop]:
    """One that never has time for a second message of a stream."""
    made = NativeLoop("block", lambda client: 0, turn_ns=1)
    yield made
    made.close()


@pytest.fixture
def pairs(loop: NativeLoop) -> Iterator[list[Pair]]:
    made = [Pair(loop) for _ in range(2)]
    yield made
    for pair in made:
        loop.remove(pair.client)
        pair.client.sock.close()
        pair.near.close()


def frame(message: Message) -> bytes:
    return codec.frame(codec.encode(message))


def is_told(pair: Pair) -> bool:
    """Whether there is something to read for the client."""
    return bool(select.select([pair.near], [], [], 0)[0])


def serve_all(loop: NativeLoop) -> None:
    """Everything that can be done without waiting for long."""
    for _ in range(40):
        loop.run_once(0)


def test_a_doorbell_is_heard_by_whoever_shared_its_memory_in_a_busy_turn(
    loop: NativeLoop, pairs: list[Pair]
) -> None:
    for pair in pairs:
        pair.near.sendall(frame(Hello(features=[LEASES, SHARED_MEMORY])))
    welcomed: list[Pair] = []
    while len(welcomed) < len(pairs):
        loop.run_once(0)
        for pair in pairs:
            if pair not in welcomed and is_told(pair):
                pair.near.sendall(frame(Attach(Hypervisor.KVM, devices=PC)))
                welcomed.append(pair)
    serve_all(loop)
    for pair in pairs:
        with pair.memory() as memory:
            ping = frame(Ping(77))
            memory[FROM_CLIENT + COUNTERS : FROM_CLIENT + COUNTERS + len(ping)] = ping
            struct.pack_into("<Q", memory, FROM_CLIENT, len(ping))
            pair.near.sendall(b"\0")
            serve_all(loop)
            (length,) = struct.unpack_from("<Q", memory, FROM_SERVER)
            said = memory[FROM_SERVER + COUNTERS : FROM_SERVER + COUNTERS + length]
        assert said.endswith(frame(Pong(77, 0)))
