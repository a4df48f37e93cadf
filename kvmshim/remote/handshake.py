"""The beginning of a conversation with a server: connecting, shaking hands, getting devices."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from devserver.protocol import limits
from devserver.protocol.address import TcpAddress, UnixAddress, parse_address
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode, ProtocolError
from devserver.protocol.greetings import LEASES, SHARED_MEMORY
from devserver.protocol.messages import (
    Attach,
    Attached,
    Busy,
    Error,
    Hello,
    Message,
    WantedDevice,
    Welcome,
)
from kvmshim.errors import InputError, ServerError, printable
from kvmshim.remote.attach_check import check_attached

CONNECT_TIMEOUT_S = 10.0
#: What a VM's own server is called where others have an address.
EMBEDDED = "(embedded)"


class Whereabouts(Protocol):
    """Another server; ``address`` is empty if it is to be reached through the owner."""

    @property
    def server_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...


@dataclass
class Attachment:
    """A connected server that has made the VM's devices; :class:`Link` takes it over."""

    sock: socket.socket
    connection: Connection
    welcome: Welcome
    attached: Attached
    server: str
    early: list[Message] = field(default_factory=list)
    leased: bool = False
    #: What the bytes go through from now on instead of the socket, if that has been agreed.
    memory_fd: int | None = None
    #: How another one is reached, if it is not the server that a machine names itself.
    where: Whereabouts | None = None

    def close(self) -> None:
        """Ends it, if nobody takes it over."""
        _hang_up(self.sock, self.memory_fd)


def _hang_up(sock: socket.socket, memory_fd: int | None) -> None:
    sock.close()
    if memory_fd is not None:
        os.close(memory_fd)


def connect(address: str, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """A socket connected to the server at ``address``; raises :class:`ServerError`."""
    where = parse_address(address)
    try:
        if isinstance(where, TcpAddress):
            sock = socket.create_connection((where.host, where.port), timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        return _connect_unix(where, timeout_s)
    except OSError as error:
        reason = error.strerror or "no answer"
        if error.errno:
            reason += f" ({errno.errorcode.get(error.errno, error.errno)})"
        raise ServerError(
            f"can't reach the device server at {where}: {reason}; "
            f"is 'devserver serve --listen {where}' running there?"
        ) from error


def _connect_unix(where: UnixAddress, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(where.path)
    except OSError:
        sock.close()
        raise
    return sock


def attach(
    sock: socket.socket,
    server: str,
    devices: Sequence[WantedDevice],
    *,
    vm_name: str,
    vm_id: int,
    hypervisor: int,
    memory_bytes: int,
    epoch_ns: int,
    leased: bool = True,
    share: bool = True,
    key: str = "",
    server_id: int = 0,
    client_id: int = 0,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> Attachment:
    """Shakes hands on a connected socket and asks for the VM's devices.

    ``leased``: whether to take leases, the answers of reads that a server hands over. ``share``:
    whether bytes may go through memory, if the server is on this machine. ``key``: that
    of the devices that the VM has left behind, which are to be what is in ``devices``.
    ``server_id`` is the server that is wanted if it is to be reached through this one,
    ``client_id`` an identifier that this client has already.
    Raises :class:`ServerError` with the server's reason if it refuses, :class:`InputError` if it
    refuses because the machine can't be built.
    """
    connection = Connection(Role.CLIENT)
    greeter = _Greeter(sock, connection, server, time.monotonic() + timeout_s)
    try:
        features = [LEASES] if leased else []
        if share and sock.family == socket.AF_UNIX:
            features.append(SHARED_MEMORY)
        name = socket.gethostname()[: limits.MAX_NAME_BYTES]
        hello = Hello(
            name=name,
            features=features,
            server_id=server_id,
            client_id=client_id,
        )
        welcome = greeter.exchange(hello, Welcome)
        request = Attach(
            hypervisor=hypervisor,
            vm_id=vm_id,
            vm_name=vm_name.encode()[-limits.MAX_NAME_BYTES :].decode(errors="ignore"),
            memory_bytes=memory_bytes,
            epoch_ns=epoch_ns,
            devices=[] if key else list(devices),
            key=key,
        )
        attached = greeter.exchange(request, Attached)
        if SHARED_MEMORY in welcome.features and greeter.memory_fd is None:
            raise ServerError(f"the device server at {server} did not share the memory it offered")
        if not key:
            check_attached(server, devices, attached.devices, attached.elsewhere)
    except BaseException:
        _hang_up(sock, greeter.memory_fd)
        raise
    sock.setblocking(False)
    how = (leased, greeter.memory_fd)
    return Attachment(sock, connection, welcome, attached, server, greeter.early, *how)


class _Greeter:
    """The blocking part of a conversation: a question, its answer."""

    def __init__(
        self, sock: socket.socket, connection: Connection, server: str, deadline_s: float
    ) -> None:
        self._sock = sock
        self._connection = connection
        self._server = server
        self._deadline_s = deadline_s
        self.early: list[Message] = []
        #: A descriptor that came with a message.
        self.memory_fd: int | None = None

    def exchange(self, question: Message, wanted: type[Any]) -> Any:
        """Sends a message and waits for the wanted one."""
        try:
            self._sock.settimeout(max(0.01, self._deadline_s - time.monotonic()))
            with contextlib.suppress(BrokenPipeError):  # its last words may still be read
                self._sock.sendall(self._connection.send(question))
            while True:
                answer = self._answer(self._receive(), wanted)
                if answer is not None:
                    return answer
        except ServerError:  # said already; as a ConnectionError it is an OSError too
            raise
        except ProtocolError as error:
            hint = "; is it a devserver?" if error.code == ErrorCode.MALFORMED else ""
            raise ServerError(f"the device server at {self._server}: {error}{hint}") from error
        except TimeoutError:
            raise ServerError(
                f"the device server at {self._server} does not answer; "
                f"is it a devserver, and is it not overloaded?"
            ) from None
        except OSError as error:
            raise ServerError(
                f"lost the device server at {self._server} during the handshake: {error.strerror}"
            ) from error

    def _receive(self) -> list[Message]:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:  # though it may be talking all the time
            raise TimeoutError
        self._sock.settimeout(left_s)
        data = self._take_in()
        if not data:
            raise ServerError(
                f"the device server at {self._server} closed the connection during the handshake; "
                f"is it a devserver? Its log may say more"
            )
        return self._connection.receive(data)

    def _take_in(self) -> bytes:
        if self._sock.family != socket.AF_UNIX:
            return self._sock.recv(65536)
        data, found, _, _ = socket.recv_fds(self._sock, 65536, 1, socket.MSG_CMSG_CLOEXEC)
        for descriptor in found:
            if self.memory_fd is not None:
                os.close(self.memory_fd)
            self.memory_fd = descriptor
        return data

    def _answer(self, messages: list[Message], wanted: type[Any]) -> Any:
        answer: Any = None
        for message in messages:
            if isinstance(message, Error | Busy):
                raise self._refusal(message)
            if isinstance(message, wanted):
                answer = message
            else:
                self.early.append(message)
        return answer

    def _refusal(self, message: Error | Busy) -> InputError | ServerError:
        why = printable(message.message)
        if isinstance(message, Busy):
            return ServerError(f"the device server at {self._server} is busy: {why}")
        if message.code == ErrorCode.MACHINE:
            # The user's mistake, which the server found. There may be several with other models.
            told = "" if self._server == EMBEDDED else f"the device server at {self._server}: "
            return InputError(f"{told}{why}")
        hint = "; install the same version on both" if message.code == ErrorCode.VERSION else ""
        return ServerError(f"the device server at {self._server} refuses: {why}{hint}")
