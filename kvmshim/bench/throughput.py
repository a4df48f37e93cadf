"""What a server does per second for many clients, asked by a load generator in C."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from devserver.protocol.address import UnixAddress, parse_address
from devserver.protocol.connection import Connection, Role, blank
from devserver.protocol.messages import (
    AddressSpace,
    Attach,
    Attached,
    Clock,
    Hello,
    Message,
    WantedDevice,
    Welcome,
)
from kvmshim.abi import ffi, lib
from kvmshim.bench.machines import allow_descriptors, serving
from kvmshim.errors import HostError, ServerError
from kvmshim.vmm.cores import choose

_IN, _OUT = 0, 1
_WARM_UP_NS = 100_000_000
_ROUND_NS = 250_000_000
_ROUNDS = 5
_RECEIVE_BYTES = 65536
_DESCRIPTORS_EACH, _DESCRIPTORS_BESIDE = 2, 128
_DEVICES = [
    WantedDevice("console", "debugcon", {"io": 0xE9}),
    WantedDevice("latch", "testdev", {"latch": 0xE0}),
]


@dataclass(frozen=True)
class Rate:
    """So many clients, each doing accesses in turn: posted in batches, or (0) one by one.

    An access is a device (by its place in the list), direction, port, size and value.
    """

    clients: int
    batch: int
    accesses: tuple[tuple[int, int, int, int, int], ...]


_CONSOLE_WRITE = (0, _OUT, 0xE9, 1, 0x41)
_LATCH_WRITE = (1, _OUT, 0xE0, 4, 7)
_LATCH_READ = (1, _IN, 0xE0, 4, 0)

RATES = {
    "server_posted_per_s": Rate(64, 64, (_CONSOLE_WRITE,)),
    "server_posted_mixed_per_s": Rate(64, 64, (_CONSOLE_WRITE, _LATCH_WRITE)),
    "server_sync_per_s": Rate(64, 0, (_LATCH_READ,)),
}


def server_rate(rate: Rate, count: int) -> list[float]:
    """ns per access, one sample per round; ``count`` below 1000 makes the rounds short.

    The server has a core of its own, and so has the load, where there are two.
    """
    share = min(1.0, count / 1000)
    where = choose("apart", "spin", embedded=True)
    allow_descriptors(rate.clients * _DESCRIPTORS_EACH + _DESCRIPTORS_BESIDE)
    before = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        listen = f"unix:{folder}/server"
        most = ("--max-clients", str(rate.clients + 1))
        address, _ = stack.enter_context(serving(listen, "adaptive", "apart", *most))
        clients = [stack.enter_context(client_of(address, n)) for n in range(rate.clients)]
        where.bind_vcpu()
        stack.callback(os.sched_setaffinity, 0, before)
        load = _Load(clients, rate)
        load.run(int(_WARM_UP_NS * share))
        return [load.run(int(_ROUND_NS * share)) for _ in range(_ROUNDS)]


@dataclass
class LoadClient:
    """A connected client whose VM's clock runs."""

    sock: socket.socket
    connection: Connection
    device_ids: tuple[int, ...]
    clock_start_ns: int


@contextlib.contextmanager
def client_of(
    address: str, number: int, devices: Sequence[WantedDevice] = _DEVICES
) -> Iterator[LoadClient]:
    """A client of a server, attached, with a clock that runs; its socket does not block."""
    where = parse_address(address)
    assert isinstance(where, UnixAddress)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10.0)
        sock.connect(where.path)
        connection = Connection(Role.CLIENT)
        _ask(sock, connection, Hello(name=f"load {number}"), Welcome)
        attached = _ask(sock, connection, Attach(1, devices=list(devices)), Attached)
        start_ns = time.monotonic_ns()
        sock.sendall(connection.send(blank(Clock, running=1, time_ns=0)))
        sock.setblocking(False)
        ids = tuple(device.device_id for device in attached.devices)
        yield LoadClient(sock, connection, ids, start_ns)


def _ask(sock: socket.socket, connection: Connection, question: Message, wanted: type[Any]) -> Any:
    sock.sendall(connection.send(question))
    while data := sock.recv(_RECEIVE_BYTES):
        for message in connection.receive(data):
            if isinstance(message, wanted):
                return message
            raise ServerError(f"the benchmark's server answered {message!r:.80}")
    raise ServerError("the benchmark's server hung up")


class _Load:
    """The clients and what they do, for C."""

    def __init__(self, clients: Sequence[LoadClient], rate: Rate) -> None:
        ids = clients[0].device_ids
        self._clients = ffi.new("struct load_client[]", [_client_for_c(c) for c in clients])
        self._accesses = ffi.new(
            "struct load_access[]",
            [
                {
                    "device_id": ids[device],
                    "direction": direction,
                    "space": AddressSpace.PORT,
                    "size": size,
                    "address": port,
                    "value": value,
                }
                for device, direction, port, size, value in rate.accesses
            ],
        )
        self._plan = ffi.new(
            "struct load_plan *",
            {"accesses": self._accesses, "access_count": len(rate.accesses), "batch": rate.batch},
        )
        self._result = ffi.new("struct load_result *")

    def run(self, duration_ns: int) -> float:
        """ns per access while it lasts; raises HostError."""
        self._plan.duration_ns = duration_ns
        if lib.load_run(self._clients, len(self._clients), self._plan, self._result) < 0:
            raise HostError(f"the load on a server came to an end: {os.strerror(ffi.errno)}")
        return float(self._result.elapsed_ns) / max(1, int(self._result.done))


def _client_for_c(client: LoadClient) -> dict[str, int]:
    connection: Any = client.connection
    return {
        "fd": client.sock.fileno(),
        "server_id": connection.server_id,
        "vm_id": connection.vm_id,
        "client_id": connection.client_id,
        "hypervisor": connection.hypervisor,
        "window": connection.window,
        "sent": connection.sent,
        "received": connection.received,
        "clock_start_ns": client.clock_start_ns,
    }
