"""What a client that asks for little waits for its answers while another one floods the server.

The flood comes from a process of its own, one sort of message at a time, as fast as the server
takes it. The client that is measured reads a device of this module's, which answers with the
processor time that its server has used up to then: so what the server did before it got to the
question is told from the whole way, however busy the machine is with other things.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack

from devserver.models.device import Device, Region, Register
from devserver.protocol.connection import Connection, blank
from devserver.protocol.messages import (
    Add,
    Added,
    Batch,
    Clock,
    Feed,
    Feedback,
    Message,
    Ping,
    Pong,
    Request,
    Save,
    State,
    WantedDevice,
    Write,
)
from kvmshim.bench.machines import serving
from kvmshim.bench.throughput import client_of
from kvmshim.errors import ServerError
from kvmshim.vmm.cores import choose

#: The clock of a process's processor time (clock_getcpuclockid; include/linux/posix-timers.h).
_CPUCLOCK_SCHED = 2
_PORT, _SIZE = 0x100, 8
_PAUSE_S = 0.0005
_WARM_UP_S = 0.2
_RECEIVE_BYTES = 1 << 18


class Clockwork(Device):
    """Says how much processor time its server has used."""

    kind = "bench-clockwork"
    regions = (
        Region(name="io", size=_SIZE, registers=(Register(offset=0, name="NOW", width=_SIZE),)),
    )

    def read_now(self, now_ns: int) -> int:
        return time.process_time_ns()

    def write_now(self, value: int, now_ns: int) -> None: ...


_ASKED = [WantedDevice("clockwork", Clockwork.kind, {"io": _PORT})]
FLOODED = [
    WantedDevice("latch", "testdev", {"latch": 0xE0}),
    WantedDevice("com", "uart16550", {"io": 0x3F8}, {"irq": 4}),
]
_READ = blank(Request, device_id=1, address=_PORT, size=_SIZE, elements=1, data=b"")


def _request(**fields: int | bytes) -> Request:
    one = {"device_id": 1, "address": 0xE0, "size": 4, "elements": 1, "data": b""}
    return blank(Request, **{**one, **fields})


def _batch() -> Batch:
    latch, scratch = Write(1, 1, 0, 0xE0, 4, 0, 7), Write(2, 1, 0, 0x3FF, 1, 0, 7)
    return blank(Batch, writes=(latch, scratch) * 256)


def _add(number: int) -> list[Message]:
    wanted = WantedDevice(f"latch {number}", "testdev", {"latch": 0x5000})
    add = blank(Add, data=msgpack.packb(dataclasses.asdict(wanted)))
    return [add, blank(Save, device_id=len(FLOODED) + 1 + number, remove=1)]


#: By what is flooded with: the messages of a go, by its number, and the answers that it has.
FLOODS: dict[str, tuple[int, Callable[[int], list[Message]]]] = {
    "ping": (200, lambda n: [Ping(n)] * 200),
    "request": (100, lambda n: [_request()] * 100),
    "string": (4, lambda n: [_request(device_id=2, address=0x3FD, size=1, elements=4096)] * 4),
    "batch": (1, lambda n: [*[_batch()] * 4, Ping(n)]),
    "feed": (1, lambda n: [*[blank(Feed, device_id=2, data=b"")] * 100, Ping(n)]),
    "clock": (1, lambda n: [*[blank(Clock, running=1, time_ns=0)] * 100, Ping(n)]),
    "save": (20, lambda n: [blank(Save, device_id=2)] * 20),
    "add": (2, _add),
}
_ANSWERS = (Pong, Feedback, State, Added)


def fairness(kind: str, count: int) -> tuple[list[float], list[float], list[float]]:
    """ns from a question to its answer without a flood, and with one; with one, ns of
    the server's processor from the question to the call of the model."""
    where = choose("apart", "spin", embedded=True)
    before = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kvmshim-bench-"))
        model = ("--model", str(Path(__file__)))
        listen = f"unix:{folder}/server"
        address, pid = stack.enter_context(serving(listen, "adaptive", "apart", *model))
        asker = stack.enter_context(client_of(address, 0, _ASKED))
        where.bind_vcpu()
        stack.callback(os.sched_setaffinity, 0, before)
        asker.sock.settimeout(10.0)
        alone, _ = _ask(asker.sock, asker.connection, pid, count)
        stack.enter_context(_flooding(address, kind))
        answered, served = _ask(asker.sock, asker.connection, pid, count)
    return alone, answered, served


def _ask(
    sock: socket.socket, connection: Connection, pid: int, count: int
) -> tuple[list[float], list[float]]:
    """ns to each answer, and of the server's processor to each call of the model."""
    clock = ~pid << 3 | _CPUCLOCK_SCHED
    answered: list[float] = []
    served: list[float] = []
    for _ in range(count):
        time.sleep(_PAUSE_S)
        used_ns = time.clock_gettime_ns(clock)
        start_ns = time.monotonic_ns()
        sock.sendall(connection.send(_READ))
        feedback = _next(sock, connection)
        answered.append(float(time.monotonic_ns() - start_ns))
        served.append(float(int.from_bytes(feedback.data, "little") - used_ns))
    return answered, served


def _next(sock: socket.socket, connection: Connection) -> Feedback:
    while True:
        for message in connection.receive(_some(sock)):
            if isinstance(message, Feedback):
                return message


@contextlib.contextmanager
def _flooding(address: str, kind: str) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=flood, args=(address, kind))
    process.daemon = True
    process.start()
    time.sleep(_WARM_UP_S)
    try:
        yield
    finally:
        process.kill()
        process.join()


def flood(address: str, kind: str) -> None:
    """Keeps two goes of messages under way, until it is killed."""
    with client_of(address, 1, FLOODED) as flooder:
        sock, connection = flooder.sock, flooder.connection
        sock.settimeout(10.0)
        answers, messages = FLOODS[kind]
        awaited = 0
        for number in itertools.count():
            sock.sendall(connection.send(*messages(number)))
            awaited += answers
            while awaited > answers:
                heard = connection.receive(_some(sock))
                awaited -= sum(isinstance(message, _ANSWERS) for message in heard)


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(_RECEIVE_BYTES)
    if not data:
        raise ServerError("the benchmark's server hung up")
    return data
