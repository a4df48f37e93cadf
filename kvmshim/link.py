"""The network side: connecting to a server, the handshake, and the running link in C."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from devserver.protocol import codec, limits
from devserver.protocol.address import TcpAddress, UnixAddress, parse_address
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode, ProtocolError
from devserver.protocol.messages import (
    Attach,
    Attached,
    AttachedDevice,
    Busy,
    Consumed,
    Error,
    Hello,
    Message,
    MessageType,
    WantedDevice,
    Welcome,
)
from kvmshim.abi import ffi, lib
from kvmshim.errors import InputError, ServerError, printable
from kvmshim.feeder import Feeder
from kvmshim.given import check_given
from kvmshim.vmstate.state import PendingInput

CONNECT_TIMEOUT_S = 10.0
#: Longer than it takes to wake a server that sleeps: otherwise two ends that have both given up
#: spinning could never find back to it, as neither would ever see it pay.
DEFAULT_SPIN_NS = 150_000
#: A batch of posted writes waits at most so long for company.
DEFAULT_FLUSH_NS = 100_000

#: The name of leases in a greeting.
LEASE_FEATURE = "lease"
#: The policy of ranges that a server may lease (docs/protocol.md, PolicyRange).
LEASED = "leased"

WAIT_MODES = {"adaptive": "LINK_ADAPTIVE", "spin": "LINK_SPIN", "block": "LINK_BLOCK"}


@dataclass(frozen=True)
class WaitPolicy:
    """How a vCPU waits for an answer: ``mode`` is adaptive, spin or block.

    ``cores`` says where it and its embedded server run: auto, any, same or apart (see
    :mod:`kvmshim.cores`).
    """

    mode: str = "adaptive"
    cores: str = "auto"
    spin_ns: int = DEFAULT_SPIN_NS
    flush_ns: int = DEFAULT_FLUSH_NS


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
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> Attachment:
    """Shakes hands on a connected socket and asks for the VM's devices.

    ``leased``: whether to take leases, the answers of reads that a server hands over.
    Raises :class:`ServerError` with the server's reason if it refuses, :class:`InputError` if it
    refuses because the machine can't be built.
    """
    connection = Connection(Role.CLIENT)
    greeter = _Greeter(sock, connection, server, time.monotonic() + timeout_s)
    try:
        name = socket.gethostname()[: limits.MAX_NAME_BYTES]
        hello = Hello(name=name, features=[LEASE_FEATURE] if leased else [])
        welcome = greeter.exchange(hello, Welcome)
        request = Attach(
            hypervisor=hypervisor,
            vm_id=vm_id,
            vm_name=vm_name.encode()[-limits.MAX_NAME_BYTES :].decode(errors="ignore"),
            memory_bytes=memory_bytes,
            epoch_ns=epoch_ns,
            devices=list(devices),
        )
        attached = greeter.exchange(request, Attached)
        check_given(server, devices, attached.devices)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return Attachment(sock, connection, welcome, attached, server, greeter.early, leased)


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
        data = self._sock.recv(65536)
        if not data:
            raise ServerError(
                f"the device server at {self._server} closed the connection during the handshake; "
                f"is it a devserver? Its log may say more"
            )
        return self._connection.receive(data)

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
            return InputError(why)  # the user's mistake, which the server found
        hint = "; install the same version on both" if message.code == ErrorCode.VERSION else ""
        return ServerError(f"the device server at {self._server} refuses: {why}{hint}")


def leases_of(devices: Sequence[AttachedDevice]) -> Any:
    """A ``struct leases *`` with a place for each address that the server may lease."""
    leases = lib.leases_new()
    wanted = [
        (device.device_id, region.space, region.base + policy.offset, policy.length)
        for device in devices
        for region in device.regions
        for policy in region.policies
        if policy.policy == LEASED
    ]
    if leases == ffi.NULL or any(lib.leases_add(leases, *place) < 0 for place in wanted):
        lib.leases_free(leases)
        raise MemoryError("no memory for leases")
    return leases


class Link:
    """A VM's stream to one server, served by C code; Python takes what concerns it."""

    def __init__(self, control: Any, attachment: Attachment, wait: WaitPolicy) -> None:
        self.server = attachment.server
        self.attached = attachment.attached
        self.leases = leases_of(attachment.attached.devices) if attachment.leased else ffi.NULL
        self._sock = attachment.sock
        self._thread: threading.Thread | None = None
        self._feeders: dict[tuple[int, int], Feeder] = {}
        #: A program may feed from one thread while another takes the device's credits.
        self._feeding = threading.Lock()
        connection, welcome = attachment.connection, attachment.welcome
        rest = connection.rest()
        held = ffi.from_buffer("uint8_t[]", rest)
        setup = ffi.new("struct link_setup *")
        setup.fd = self._sock.fileno()
        setup.server_id, setup.client_id = welcome.server_id, welcome.client_id
        setup.vm_id, setup.hypervisor = attachment.attached.vm_id, connection.hypervisor
        # Numbered messages that came with the handshake are read again, by the C side.
        early = [message for message in attachment.early if hasattr(message, "seq")]
        again = b"".join(codec.encode(message) for message in early)
        setup.sent, setup.received = connection.sent, connection.received - len(early)
        if again:
            held = ffi.from_buffer("uint8_t[]", codec.frame(again) + rest)
        setup.rest, setup.rest_length = held, len(held)
        setup.window = attachment.attached.window
        setup.leases = self.leases
        setup.wait_mode = getattr(lib, WAIT_MODES[wait.mode])
        setup.spin_ns, setup.flush_after_ns = wait.spin_ns, wait.flush_ns
        setup.heartbeat_ns, setup.deadline_ns = welcome.heartbeat_ns, welcome.deadline_ns
        self.handle = lib.link_new(control, setup)
        if self.handle == ffi.NULL:
            lib.leases_free(self.leases)
            raise ServerError(f"can't set up the link to {self.server}: {os.strerror(ffi.errno)}")

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the event thread, unless it runs."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(
            target=lib.link_serve, args=(self.handle,), name=f"link {self.server}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Flushes, ends the event thread, closes the socket."""
        if self.handle == ffi.NULL:
            return
        lib.link_close(self.handle)
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        lib.link_free(self.handle)
        lib.leases_free(self.leases)
        self.handle = self.leases = ffi.NULL

    # -- what Python sends --------------------------------------------------------------------

    def clock(self, time_ns: int, running: bool) -> None:
        """Says what VM time is and whether it runs."""
        self._send(MessageType.CLOCK, time_ns=time_ns, running=int(running))

    def settle(self) -> bool:
        """Waits until the server has done all that it was told, and has told what came of it.

        False if the link was lost or the VM is to stop.
        """
        return bool(lib.link_settle(self.handle) == 0)

    def detach(self, time_ns: int) -> None:
        """Says that the VM has ended."""
        self._send(MessageType.DETACH, time_ns=time_ns)

    def feed(
        self, device_id: int, channel: int, data: bytes, time_ns: int, *, end: bool = False
    ) -> None:
        """Gives a device bytes from the world, as fast as it takes them."""
        key = (device_id, channel)
        with self._feeding:
            if key not in self._feeders:
                self._feeders[key] = Feeder(partial(self._feed, *key))
            self._feeders[key].give(data, time_ns, end=end)

    def backlog(self, device_id: int, channel: int) -> int:
        """Bytes fed that are still here because the device has not taken earlier ones."""
        with self._feeding:
            feeder = self._feeders.get((device_id, channel))
            return feeder.waiting if feeder else 0

    def pending_inputs(self) -> list[PendingInput]:
        """The input that is on its way to devices; of a machine that is paused."""
        names = {device.device_id: device.name for device in self.attached.devices}
        with self._feeding:
            return [
                feeder.save(names[device_id], channel)
                for (device_id, channel), feeder in self._feeders.items()
            ]

    def put_back_inputs(self, inputs: Iterable[PendingInput]) -> None:
        """Restores what :meth:`pending_inputs` gave, as far as it is for devices here."""
        numbers = {device.name: device.device_id for device in self.attached.devices}
        with self._feeding:
            for pending in inputs:
                if pending.device in numbers:
                    key = (numbers[pending.device], pending.channel)
                    self._feeders[key] = Feeder(partial(self._feed, *key))
                    self._feeders[key].load(pending)

    def _feed(self, device_id: int, channel: int, data: bytes, time_ns: int, end: bool) -> None:
        self._send(
            MessageType.FEED,
            data,
            device_id=device_id,
            channel=channel,
            end=int(end),
            time_ns=time_ns,
        )

    def _send(self, kind: MessageType, data: bytes = b"", **fields: int) -> None:
        held = ffi.from_buffer("uint8_t[]", data)
        message = ffi.new("struct message *", {"type": int(kind), **fields})
        message.data, message.length = held, len(data)
        lib.link_send(self.handle, message)

    # -- what Python receives -----------------------------------------------------------------

    @property
    def inbox_fd(self) -> int:
        """Readable when :meth:`take` has something, or the link has ended."""
        return int(self.handle.inbox_fd)

    def take(self, time_ns: int) -> list[Message]:
        """The messages for Python that have come in; credits are dealt with here."""
        size = lib.link_inbox_bytes(self.handle)
        if not size:
            lib.link_take(self.handle, ffi.NULL, 0)
            return []
        buffer = ffi.new("uint8_t[]", size)
        taken = lib.link_take(self.handle, buffer, size)
        messages = codec.decode(bytes(ffi.buffer(buffer, taken)))
        for message in messages:
            if isinstance(message, Consumed):
                with self._feeding:
                    feeder = self._feeders.get((message.device_id, message.channel))
                    if feeder is not None:
                        feeder.consumed(message.total, time_ns)
        return messages

    def is_open(self) -> bool:
        """Whether the link still works."""
        return bool(self.handle.state == lib.LINK_OPEN)

    def why_lost(self, last_words: Sequence[Message] = ()) -> str:
        """One line on how the link ended; ``last_words`` are messages taken from it."""
        for message in last_words:
            if isinstance(message, Error | Busy):
                why = printable(message.message)
                return f"the device server at {self.server} ended the session: {why}"
        text = ffi.string(self.handle.error).decode(errors="replace")
        return f"lost the device server at {self.server}: {text}"

    def stats(self) -> dict[str, int]:
        """Counters of the link; see ``struct link_stats`` in native/src/link.h."""
        names = (
            "requests",
            "posted",
            "batches",
            "interrupts",
            "leases",
            "frames_in",
            "sends",
            "spun",
            "slept",
            "stalls",
            "roused",
        )
        return {name: int(getattr(self.handle.stats, name)) for name in names}
