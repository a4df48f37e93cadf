"""A guest's accesses through the C code, one at a time, over a socket pair: no KVM, no clock.

VM time is what the test says. Bytes wait on both ways until the test lets them go on, so that any
message can be late; only an access that waits for its answer lets everything through.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from kvmshim._native import ffi, lib

from devserver.protocol import codec
from devserver.protocol.messages import AttachedDevice, Ping, Pong, Request
from kvmshim.remote.link import leases_of
from kvmshim.vmm.routes import Routes

SERVER_ID, VM_ID, CLIENT_ID, HYPERVISOR = IDENTIFIERS = 1, 2, 3, 1
AT_MOST_S = 20.0

#: Takes a client's frame; gives the payloads of the frames that a server answers with.
Server = Callable[[bytes], Sequence[bytes]]


class WireGuest:
    """The client's side of one server's devices."""

    def __init__(
        self,
        devices: list[AttachedDevice],
        server: Server,
        identifiers: tuple[int, int, int, int] = IDENTIFIERS,
    ) -> None:
        self._server = server
        self._to_server: deque[bytes] = deque()
        self._to_client: deque[bytes] = deque()
        self._received = b""
        self._client, self._sock = socket.socketpair()
        self._control = lib.control_new(-1)
        self._leases = leases_of(devices)
        self.link = lib.link_new(self._control, self._setup(identifiers))
        self._routes = Routes(0)
        attached = SimpleNamespace(devices=devices)
        end: Any = SimpleNamespace(handle=self.link, attached=attached, leases=self._leases)
        self._routes.add_link(end)
        self.vcpu = ffi.new("struct vcpu *")
        self.vcpu.control, self.vcpu.routes = self._control, self._routes.handle
        self._reader = threading.Thread(target=lib.link_serve, args=(self.link,))
        self._reader.start()
        self._pool = ThreadPoolExecutor(1)

    def _setup(self, identifiers: tuple[int, int, int, int]) -> Any:
        setup = ffi.new("struct link_setup *")
        setup.fd, setup.memory_fd, setup.leases = self._client.fileno(), -1, self._leases
        setup.server_id, setup.vm_id, setup.client_id, setup.hypervisor = identifiers
        setup.window, setup.wait_mode = 4096, lib.LINK_BLOCK
        setup.heartbeat_ns, setup.deadline_ns = 10**11, 2 * 10**11
        setup.flush_after_ns = 10**11
        return setup

    def close(self) -> None:
        """Ends the link and its thread."""
        self._pool.shutdown()
        lib.link_close(self.link)
        self._reader.join()
        self._client.close()
        self._sock.close()
        lib.link_free(self.link)
        lib.leases_free(self._leases)
        self._routes.close()
        lib.control_free(self._control)

    # -- what the guest does ------------------------------------------------------------------

    def read(self, port: int, now_ns: int, size: int = 1) -> int:
        """An IN."""
        data = ffi.new("uint8_t[]", size)
        self._access(0, port, now_ns, data)
        return int.from_bytes(bytes(data), "little")

    def write(self, port: int, value: int, now_ns: int, size: int = 1) -> None:
        """An OUT."""
        self._access(1, port, now_ns, ffi.new("uint8_t[]", [*value.to_bytes(size, "little")]))

    def _access(self, direction: int, port: int, now_ns: int, data: Any) -> None:
        self._control.stopped_ns = now_ns
        access = ffi.new("struct vcpu_access *")
        access.direction, access.address = direction, port
        access.size, access.elements, access.data = len(data), 1, data
        served = self._pool.submit(lib.access_serve, self.vcpu, access)
        while not self._is_done(served):
            self.settle()
        assert served.result() == lib.VCPU_CONTINUE, ffi.string(self.link.error)

    def _is_done(self, served: Future[Any]) -> bool:
        """Whether an access is over; False when it waits for the server."""
        while not served.done():
            if select.select([self._sock], [], [], 0.0002)[0]:
                self._hear()
                if any(_is_awaited(frame) for frame in self._to_server):
                    return False
        return True

    # -- what travels -------------------------------------------------------------------------

    def flush(self) -> None:
        """Sends what is batched; the server does not have it yet."""
        lib.link_flush(self.link)
        while select.select([self._sock], [], [], 0)[0]:
            self._hear()

    def deliver(self) -> None:
        """One frame of the client's reaches the server."""
        if self._to_server:
            self._to_client += self._server(self._to_server.popleft())

    def say(self, frames: Sequence[bytes]) -> None:
        """The server says something by itself, behind what it has said before."""
        self._to_client += frames

    def take(self) -> None:
        """One frame of the server's reaches the client, which has acted on it then."""
        if self._to_client:
            ping = codec.frame(codec.encode(Ping(1)))
            self._sock.sendall(codec.frame(self._to_client.popleft()) + ping)
            while not self._hear():
                pass

    def settle(self) -> None:
        """Everything that is under way arrives."""
        while self._to_server:
            self.deliver()
        while self._to_client:
            self._sock.sendall(codec.frame(self._to_client.popleft()))

    def _hear(self) -> bool:
        """Takes what the client has sent; whether there was a PONG."""
        ready, _, _ = select.select([self._sock], [], [], AT_MOST_S)
        assert ready, "the client is silent"
        self._received += self._sock.recv(65536)
        ponged = False
        while len(self._received) >= 4:
            end = 4 + int.from_bytes(self._received[:4], "big")
            if len(self._received) < end:
                break
            frame, self._received = self._received[4:end], self._received[end:]
            if isinstance(codec.decode(frame)[0], Pong):
                ponged = True
            else:
                self._to_server.append(frame)
        return ponged


def _is_awaited(frame: bytes) -> bool:
    """Whether a frame ends with something that the guest waits for."""
    return isinstance(codec.decode(frame)[-1], Request | Ping)
