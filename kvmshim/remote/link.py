"""The network side: a link to a server that has attached the VM's devices, running in C."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import msgpack

from devserver.plain import from_plain
from devserver.protocol import codec
from devserver.protocol.errors import RemoteProtocolError
from devserver.protocol.messages import (
    Added,
    AttachedDevice,
    Busy,
    Consumed,
    Error,
    Message,
    MessageType,
    State,
    Status,
    WantedDevice,
)
from devserver.waiting import MODEL_TIMEOUT_S
from kvmshim.abi import ffi, lib
from kvmshim.errors import InputError, ServerError, printable
from kvmshim.remote.attach_check import check_attached
from kvmshim.remote.feeder import Feeder, load_inputs, save_inputs
from kvmshim.remote.handshake import Attachment
from kvmshim.vmstate.state import PendingInput

#: Longer than it takes to wake a server that sleeps: otherwise two ends that have both given up
#: spinning could never find back to it, as neither would ever see it pay.
DEFAULT_SPIN_NS = 150_000
#: A batch of posted writes waits at most so long for company.
DEFAULT_FLUSH_NS = 100_000

#: An answer about a device that is to move takes no longer.
ANSWER_TIMEOUT_S = 10.0

#: The policy of ranges that a server may lease (docs/protocol.md, PolicyRange).
LEASED = "leased"

WAIT_MODES = {"adaptive": "LINK_ADAPTIVE", "spin": "LINK_SPIN", "block": "LINK_BLOCK"}


@dataclass(frozen=True)
class WaitPolicy:
    """How a vCPU waits for an answer: ``mode`` is adaptive, spin or block.

    ``cores`` says where it and its embedded server run: auto, any, same or apart (see
    :mod:`kvmshim.vmm.cores`). ``share``: whether it looks for the answer in memory, where its
    server is on the same machine and has a Unix socket; else it always asks the socket.
    ``model_timeout_s``: how long a call of a model may take, here and on an embedded server.
    """

    mode: str = "adaptive"
    cores: str = "auto"
    spin_ns: int = DEFAULT_SPIN_NS
    flush_ns: int = DEFAULT_FLUSH_NS
    share: bool = True
    model_timeout_s: float = MODEL_TIMEOUT_S


def leases_of(devices: Sequence[AttachedDevice]) -> Any:
    """A ``struct leases *`` with a place for each address that the server may lease."""
    leases = lib.leases_new()
    try:
        _add_leases(leases, devices)
    except MemoryError:
        lib.leases_free(leases)
        raise
    return leases


def _add_leases(leases: Any, devices: Sequence[AttachedDevice]) -> None:
    wanted = [
        (device.device_id, region.space, region.base + policy.offset, policy.length)
        for device in devices
        for region in device.regions
        for policy in region.policies
        if policy.policy == LEASED
    ]
    if leases == ffi.NULL or any(lib.leases_add(leases, *place) < 0 for place in wanted):
        raise MemoryError("no memory for leases")


class Link:
    """A VM's stream to one server, served by C code; Python takes what concerns it."""

    def __init__(
        self, control: Any, attachment: Attachment, wait: WaitPolicy, source: int = 1
    ) -> None:
        """``source`` is this link's number among those that drive interrupt lines; 0 is the
        client itself."""
        self.server = attachment.server
        self.server_id = attachment.welcome.server_id
        self.client_id = attachment.welcome.client_id
        self.attached = attachment.attached
        self.where = attachment.where
        self.leases = leases_of(attachment.attached.devices) if attachment.leased else ffi.NULL
        self._sock = attachment.sock
        self._thread: threading.Thread | None = None
        self._kept: list[Message] = []
        self._broken = ""
        self._feeders: dict[tuple[int, int], Feeder] = {}
        #: A program may feed from one thread while another takes the device's credits.
        self._feeding = threading.Lock()
        connection, welcome = attachment.connection, attachment.welcome
        rest = connection.rest()
        held = ffi.from_buffer("uint8_t[]", rest)
        setup = ffi.new("struct link_setup *")
        setup.fd = self._sock.fileno()
        setup.memory_fd = -1 if attachment.memory_fd is None else attachment.memory_fd
        setup.server_id, setup.client_id = welcome.server_id, welcome.client_id
        setup.vm_id, setup.hypervisor = attachment.attached.vm_id, connection.hypervisor
        # Numbered messages that came with the handshake are read again, by the C side.
        early = [message for message in attachment.early if hasattr(message, "seq")]
        again = b"".join(codec.encode(message) for message in early)
        setup.sent, setup.received = connection.sent, connection.received - len(early)
        if again:
            held = ffi.from_buffer("uint8_t[]", codec.frame(again) + rest)
        setup.rest, setup.rest_length = held, len(held)
        setup.source = source
        setup.window = attachment.attached.window
        setup.leases = self.leases
        setup.wait_mode = getattr(lib, WAIT_MODES[wait.mode])
        setup.spin_ns, setup.flush_after_ns = wait.spin_ns, wait.flush_ns
        setup.heartbeat_ns, setup.deadline_ns = welcome.heartbeat_ns, welcome.deadline_ns
        self.handle = lib.link_new(control, setup)
        number = ffi.errno
        if attachment.memory_fd is not None:
            os.close(attachment.memory_fd)
        if self.handle == ffi.NULL:
            lib.leases_free(self.leases)
            raise ServerError(f"can't set up the link to {self.server}: {os.strerror(number)}")

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
        return bool(lib.link_barrier(self.handle) == 0)

    def detach(self, time_ns: int, *, keep: bool = False) -> None:
        """Says that the VM has ended; ``keep``: that its devices wait for another client."""
        self._send(MessageType.DETACH, time_ns=time_ns, keep=int(keep))

    # -- devices on the move, while VM time stands --------------------------------------------

    def save_one(self, device_id: int, time_ns: int, *, remove: bool = False) -> bytes:
        """A device's state; ``remove``: the server has it no longer. Raises ServerError."""
        self._send(MessageType.SAVE, device_id=device_id, remove=int(remove), time_ns=time_ns)
        data = self._answer(State, f"device {device_id} can't be saved")
        if remove:
            left = [d for d in self.attached.devices if d.device_id != device_id]
            self.attached = replace(self.attached, devices=left)
            with self._feeding:
                self._feeders = {k: f for k, f in self._feeders.items() if k[0] != device_id}
        return data

    def add(self, wanted: WantedDevice, time_ns: int) -> AttachedDevice:
        """A further device on the server; raises ServerError, or InputError if it refuses."""
        self._send(MessageType.ADD, msgpack.packb(asdict(wanted)), time_ns=time_ns)
        data = self._answer(Added, f"device '{wanted.name}' can't be added")
        plain = msgpack.unpackb(data)
        device: AttachedDevice = from_plain(AttachedDevice, plain, "ADDED", lenient=True)
        check_attached(self.server, [wanted], [device])
        self.attached = replace(self.attached, devices=[*self.attached.devices, device])
        if self.leases != ffi.NULL:
            _add_leases(self.leases, [device])
        return device

    def wait_until_gone(self) -> bool:
        """Waits for the server to close the connection, as it does behind a DETACH."""
        return self._await(lambda: not self.is_open())

    def _answer(self, wanted: type[State | Added], what: str) -> bytes:
        found: list[State | Added] = []

        def arrived() -> bool:
            for message in self._receive():
                if isinstance(message, wanted):
                    found.append(message)
                else:
                    self._kept.append(message)
            return bool(found) or not self.is_open()

        if not self._await(arrived):
            raise ServerError(f"{what}: the device server at {self.server} does not answer")
        if not found:
            raise ServerError(f"{what}: {self.why_lost(self._kept)}")
        if found[0].status != Status.OK:
            why = printable(found[0].data.decode(errors="replace"))
            raise InputError(f"{what} on the device server at {self.server}: {why}")
        return found[0].data

    def _await(self, done: Callable[[], bool]) -> bool:
        poll = select.poll()
        poll.register(self.inbox_fd, select.POLLIN)
        end_s = time.monotonic() + ANSWER_TIMEOUT_S
        while not done():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            poll.poll(left_s * 1000)
        return True

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
        """The input that waits here for devices; of a machine that is paused."""
        with self._feeding:
            return save_inputs(self._feeders, self.attached.devices)

    def put_back_inputs(self, inputs: Iterable[PendingInput], time_ns: int) -> None:
        """Restores what :meth:`pending_inputs` gave, as far as it is for devices here."""
        with self._feeding:
            self._feeders |= load_inputs(inputs, self.attached.devices, self._feed, time_ns)

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
        messages, self._kept = [*self._kept, *self._receive()], []
        for message in messages:
            if isinstance(message, Consumed):
                with self._feeding:
                    feeder = self._feeders.get((message.device_id, message.channel))
                    if feeder is not None:
                        feeder.consumed(message.total, time_ns)
        return messages

    def _receive(self) -> list[Message]:
        size = lib.link_inbox_bytes(self.handle)
        if not size:
            lib.link_take(self.handle, ffi.NULL, 0)
            return []
        buffer = ffi.new("uint8_t[]", size)
        taken = lib.link_take(self.handle, buffer, size)
        try:
            return codec.decode(bytes(ffi.buffer(buffer, taken)))
        except RemoteProtocolError as error:
            self._broken = f"it broke the protocol: {printable(str(error))}"
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # the link ends by that
            return []

    def is_open(self) -> bool:
        """Whether the link still works."""
        return bool(self.handle.state == lib.LINK_OPEN)

    def why_lost(self, last_words: Sequence[Message] = ()) -> str:
        """One line on how the link ended; ``last_words`` are messages taken from it."""
        for message in last_words:
            if isinstance(message, Error | Busy):
                why = printable(message.message)
                return f"the device server at {self.server} ended the session: {why}"
        text = self._broken or ffi.string(self.handle.error).decode(errors="replace")
        return f"lost the device server at {self.server}: {text}"

    def stats(self) -> dict[str, int]:
        """Counters of the link; see ``struct link_stats`` in native/src/link/link.h."""
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
            "woken",
        )
        return {name: int(getattr(self.handle.stats, name)) for name in names}
