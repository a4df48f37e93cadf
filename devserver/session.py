"""One VM's devices on this server: bytes from its client in, bytes for it out. No sockets.

The owner passes the time (``CLOCK_MONOTONIC``, ns) into every call. A session turns it into VM
time: the client says when VM time runs and stamps its requests with it, and the highest estimate
seen is kept, since it is the one with the least network delay in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from devserver.backplane import Backplane, BoardError, DeviceFault, Mapped
from devserver.board import DeviceWiring
from devserver.inventory import describe
from devserver.models.device import Signal, Space
from devserver.protocol import codec, limits
from devserver.protocol.connection import Connection, Role, State
from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.glance import Glance, Glancer
from devserver.protocol.messages import (
    Attach,
    Attached,
    Batch,
    Clock,
    Detach,
    Direction,
    Error,
    EventKind,
    Feed,
    Hello,
    Message,
    MessageType,
    Ping,
    Request,
    Status,
    Welcome,
    Write,
)
from devserver.vm_clock import VmClock

log = logging.getLogger("devserver.session")

_MASKS = {size: (1 << (8 * size)) - 1 for size in (1, 2, 4, 8)}
_SIZES = tuple(_MASKS)
_EVENTS = {Signal.EXIT: EventKind.EXIT, Signal.RESET: EventKind.RESET}


@dataclass(frozen=True)
class Identity:
    """What a server says of itself."""

    server_id: int = 1
    name: str = "devserver"
    heartbeat_ns: int = limits.DEFAULT_HEARTBEAT_NS
    deadline_ns: int = limits.DEFAULT_DEADLINE_NS
    window: int = limits.DEFAULT_WINDOW


class Session:
    """The server's end of one connection, from HELLO to the end."""

    def __init__(self, identity: Identity, allot_id: Callable[[], int], peer: str) -> None:
        self.connection = Connection(Role.SERVER)
        self.peer = peer
        self.finished = False
        self._identity = identity
        self._allot_id = allot_id
        self.backplane = Backplane((), self)
        self._clock = VmClock()
        #: Encoded messages that wait to be sent; whoever sends them clears it.
        self.outgoing: list[bytes] = []
        self._line_numbers: dict[int, int] = {}
        self._unacknowledged_writes = 0
        self._ack_every = max(1, min(limits.ACK_EVERY, identity.window // 4))
        self._fault: DeviceFault | None = None
        self._glancer: Glancer | None = None
        self._emitter = (0, 0)
        self._emitted = bytearray()

    # -- what the owner calls -----------------------------------------------------------------

    def receive(self, data: bytes, monotonic_ns: int) -> bytes:
        """Acts on bytes from the client; returns the bytes to send. See :attr:`finished`."""
        try:
            glance = self._glancer.look(data) if self._glancer else None
            if glance is not None and self.connection.is_between_frames():
                answer = self._at_a_glance(glance, monotonic_ns)
                if answer is not None:
                    return answer
            for message in self.connection.incoming(data):
                self._handle(message, monotonic_ns)
                self._end_emit()
        except RemoteProtocolError as error:
            self._refuse(error.code, str(error))
        return self._flush()

    def advance(self, monotonic_ns: int) -> bytes:
        """Lets devices do what is due; returns the bytes to send."""
        self._advance(self._clock.now_ns(monotonic_ns))
        return self._flush()

    def next_deadline_ns(self) -> int | None:
        """The monotonic time at which :meth:`advance` is to be called, if any."""
        due_ns = self.backplane.next_deadline_ns()
        if due_ns is None or self._fault:
            return None
        return self._clock.monotonic_of(due_ns)

    def ping(self) -> bytes:
        """A frame that asks the client for a sign of life; empty before there is a session."""
        if self.connection.state in (State.OPENING, State.GREETING, State.CLOSED):
            return b""
        return self.connection.send(Ping(0))

    def end(self, code: ErrorCode, why: str) -> bytes:
        """Ends the conversation from this side; returns the last bytes to send."""
        if not self.finished:
            self._refuse(code, why)
        return self._flush()

    # -- what the backplane calls -------------------------------------------------------------

    def line(self, line: int, level: bool) -> None:
        number = self._line_numbers.get(line, 0) + 1
        self._line_numbers[line] = number
        self._tell(MessageType.INTERRUPT, line, level, number)

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        # A device that prints emits byte after byte. What one message makes it emit is put
        # together until anything else is said, and so keeps its place in the stream.
        if self._emitter != (device_id, channel):
            self._end_emit()
            self._emitter = (device_id, channel)
        self._emitted += data

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        self._tell(MessageType.CONSUMED, device_id, channel, total)

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        self._event(device_id, _EVENTS[signal], value)

    # -- messages -----------------------------------------------------------------------------

    def _handle(self, message: Message, monotonic_ns: int) -> None:
        match message:
            case Request():
                self._clock.observe(message.time_ns, monotonic_ns)
                self._on_request(message)
            case Batch():
                self._on_batch(message, monotonic_ns)
            case Feed():
                self._clock.observe(message.time_ns, monotonic_ns)
                self._on_feed(message)
            case Clock():
                self._clock.set(message.time_ns, bool(message.running), monotonic_ns)
                self._advance(message.time_ns)
            case Ping():
                self.outgoing.append(codec.encode(self.connection.pong(message.token)))
            case Hello():
                self._on_hello(message)
            case Attach():
                self._on_attach(message)
            case Detach():
                self.finished = True
            case Error():
                log.warning("%s: the client gave up: %s", self.peer, message.message)
                self.finished = True

    def _on_hello(self, hello: Hello) -> None:
        identity = self._identity
        welcome = Welcome(
            version=limits.PROTOCOL_VERSION,
            server_id=identity.server_id,
            client_id=hello.client_id or self._allot_id(),
            epoch=self._allot_id(),
            name=identity.name,
            heartbeat_ns=identity.heartbeat_ns,
            deadline_ns=identity.deadline_ns,
        )
        self._say(welcome)

    def _on_attach(self, attach: Attach) -> None:
        if len(attach.devices) > limits.MAX_DEVICES:
            raise RemoteProtocolError(
                ErrorCode.MACHINE, f"at most {limits.MAX_DEVICES} devices can be attached"
            )
        wirings = [
            DeviceWiring(
                name=wanted.name,
                kind=wanted.kind,
                bases=wanted.bases,
                lines=wanted.lines,
                options=wanted.options,
            )
            for wanted in attach.devices
        ]
        try:
            self.backplane = Backplane(wirings, self, attach.epoch_ns)
        except (BoardError, DeviceFault) as error:
            raise RemoteProtocolError(ErrorCode.MACHINE, str(error)) from error
        self._say(
            Attached(
                vm_id=attach.vm_id or self._allot_id(),
                window=self._identity.window,
                devices=describe(self.backplane),
            )
        )
        for line, level in self.backplane.line_levels().items():
            if level:  # raised while the devices were being made
                self.line(line, level)
        self._glancer = Glancer(self.connection)
        log.info("%s: VM '%s' attached %d devices", self.peer, attach.vm_name, len(wirings))

    def _on_request(self, request: Request) -> None:
        mapped = self._claimed(request)
        status, data = Status.OK, b""
        if request.size not in _SIZES or not self._fits(request):
            raise RemoteProtocolError(
                ErrorCode.MALFORMED,
                f"REQUEST of {request.elements} elements of {request.size} bytes "
                f"with {len(request.data)} bytes of data",
            )
        try:
            if self._fault:
                status = Status.FAULT
            elif request.direction == Direction.IN:
                data = self._read(mapped, request)
            else:
                self._write(mapped, request)
        except DeviceFault as fault:
            self._stop_for(fault)
            status = Status.FAULT
        if request.direction == Direction.IN:
            self._tell(MessageType.FEEDBACK, request.seq, status, tail=data)
        else:
            self._tell(MessageType.FINISH, request.seq, status)

    def _read(self, mapped: Mapped, request: Request) -> bytes:
        size = request.size
        values = self.backplane.read_elements(
            mapped.region.space, request.address, size, request.elements, request.time_ns
        )
        return bytes(values) if size == 1 else b"".join(v.to_bytes(size, "little") for v in values)

    def _write(self, mapped: Mapped, request: Request) -> None:
        space, size, data = mapped.region.space, request.size, request.data
        for start, end in pairwise(range(0, len(data) + 1, size)):
            value = int.from_bytes(data[start:end], "little")
            self.backplane.write(space, request.address, size, value, request.time_ns)

    def _on_batch(self, batch: Batch, monotonic_ns: int) -> None:
        backplane = self.backplane
        likely_ns = self._clock.latest_likely_ns(monotonic_ns)
        for device_id, direction, space, address, size, time_ns, value in batch.writes:
            mapped = backplane.find(space, address)
            if mapped is None or mapped.slot.device_id != device_id or address + size > mapped.end:
                raise _not_there(device_id, space, address, size)
            if size not in _SIZES:
                raise RemoteProtocolError(
                    ErrorCode.MALFORMED, f"BATCH with a write of {size} bytes"
                )
            if time_ns > likely_ns:
                self._clock.observe(time_ns, monotonic_ns)  # says what is wrong
            if self._fault:
                continue
            try:
                if direction:
                    backplane.write_at(mapped, address, size, value & _MASKS[size], time_ns)
                else:
                    backplane.read_at(mapped, address, size, time_ns)
            except DeviceFault as fault:
                self._stop_for(fault)
        if batch.writes:
            self._clock.observe(batch.writes[-1].time_ns, monotonic_ns)
        self._unacknowledged_writes += len(batch.writes)
        if self._unacknowledged_writes >= self._ack_every:
            self._unacknowledged_writes = 0
            self.outgoing.append(codec.encode(self.connection.acknowledgement()))

    def _on_feed(self, feed: Feed) -> None:
        slot = self.backplane.slots.get(feed.device_id)
        if slot is None or feed.channel >= len(slot.device.feeds):
            raise RemoteProtocolError(
                ErrorCode.DEVICE,
                f"FEED for device {feed.device_id}, channel {feed.channel}, which is not there",
            )
        if self._fault:
            return
        try:
            self.backplane.feed(
                feed.device_id, feed.channel, feed.data, feed.time_ns, end=bool(feed.end)
            )
        except OverflowError as error:
            raise RemoteProtocolError(ErrorCode.MALFORMED, str(error)) from error
        except DeviceFault as fault:
            self._stop_for(fault)

    def _at_a_glance(self, request: Glance, monotonic_ns: int) -> bytes | None:
        """Serves a simple request as :meth:`_on_request` does, only faster; None: it can't."""
        seq, ack, device_id, direction, address, size, time_ns, value = request
        if size not in _SIZES or not self.connection.accept_request(seq, ack):
            return None
        self._clock.observe(time_ns, monotonic_ns)
        status, value = self.access(device_id, direction, Space.PORT, address, size, value, time_ns)
        self.answer(direction, status, value, size)
        return self._flush()

    # -- one access; what the data loop in C calls (devserver/hotloop.py) ----------------------

    def access(
        self,
        device_id: int,
        direction: int,
        space: int,
        address: int,
        size: int,
        value: int,
        time_ns: int,
    ) -> tuple[int, int]:
        """Applies one access of one element; returns its status and, for an IN, the value.

        Raises :class:`RemoteProtocolError` if the device does not answer there.
        """
        backplane = self.backplane
        mapped = backplane.find(space, address)
        if mapped is None or mapped.slot.device_id != device_id or address + size > mapped.end:
            raise _not_there(device_id, space, address, size)
        if self._fault:
            return Status.FAULT, 0
        try:
            if direction:
                backplane.write_at(mapped, address, size, value, time_ns)
                value = 0
            else:
                value = backplane.read_at(mapped, address, size, time_ns)
        except DeviceFault as fault:
            self._stop_for(fault)
            return Status.FAULT, 0
        if self._emitted:
            self._end_emit()
        return 0, value

    def answer(self, direction: int, status: int, value: int, size: int) -> None:
        """Answers the request that was received last."""
        request = self.connection.received
        if direction:
            self._tell(MessageType.FINISH, request, status)
        else:
            data = b"" if status else value.to_bytes(size, "little")
            self._tell(MessageType.FEEDBACK, request, status, tail=data)

    def is_attached(self) -> bool:
        """Whether requests may come, at a running VM time, and no part of a frame has come yet."""
        connection = self.connection
        return (
            connection.state is State.ATTACHED
            and connection.is_between_frames()
            and self._clock.highest_offset_ns() is not None
        )

    def take_output(self) -> bytes:
        """The frames that wait to be sent."""
        return self._flush()

    def highest_clock_offset_ns(self) -> int:
        """What :meth:`observe_clock` takes at most; only while the session is attached."""
        return self._clock.highest_offset_ns() or 0

    def observe_clock(self, offset_ns: int) -> None:
        """A request's VM time was ``offset_ns`` above CLOCK_MONOTONIC on its arrival."""
        self._clock.observe(offset_ns, 0)

    # -- inner workings -----------------------------------------------------------------------

    def _claimed(self, access: Request | Write) -> Mapped:
        """The region that an access is for; the peer's mistake if it is not the device's."""
        mapped = self.backplane.find(access.space, access.address)
        if (
            mapped is None
            or mapped.slot.device_id != access.device_id
            or access.address + access.size > mapped.end
        ):
            raise _not_there(access.device_id, access.space, access.address, access.size)
        return mapped

    @staticmethod
    def _fits(request: Request) -> bool:
        length = request.size * request.elements
        wanted = length if request.direction == Direction.OUT else 0
        return (
            0 < length <= limits.MAX_DATA_BYTES
            and len(request.data) == wanted
            and request.direction in tuple(Direction)
        )

    def _advance(self, now_ns: int) -> None:
        if self._fault:
            return
        try:
            self.backplane.advance(now_ns)
        except DeviceFault as fault:
            self._stop_for(fault)

    def _stop_for(self, fault: DeviceFault) -> None:
        """A model failed: its VM stops, with the model's name; nobody else is harmed."""
        self._fault = fault
        log.error("%s: %s\n%s", self.peer, fault, fault.details)
        self._event(0, EventKind.FAULT, 0, _cut(f"{fault}\n{fault.details}"))

    def _refuse(self, code: ErrorCode, why: str) -> None:
        log.warning("%s: %s", self.peer, why)
        self._say(Error(code, _cut(why)))
        self.finished = True

    def _event(self, device_id: int, kind: EventKind, value: int, text: str = "") -> None:
        self._tell(MessageType.EVENT, device_id, kind, value, tail=text.encode())

    def _end_emit(self) -> None:
        """Turns what was emitted into messages."""
        if not self._emitted:
            return
        data = bytes(self._emitted)
        self._emitted.clear()
        for at in range(0, len(data), limits.MAX_EMIT_BYTES):
            part = data[at : at + limits.MAX_EMIT_BYTES]
            self._tell(MessageType.EMIT, *self._emitter, tail=part)

    def _tell(self, kind: MessageType, *own: int, tail: bytes | None = None) -> None:
        if self._emitted:
            self._end_emit()
        if self.connection.state is State.ATTACHED:
            self.outgoing.append(self.connection.encode(kind, *own, tail=tail))

    def _say(self, message: Message) -> None:
        self._end_emit()
        self.outgoing.append(codec.encode(self.connection.stamp(message)))

    def _flush(self) -> bytes:
        """Everything said in this turn, in as few frames as the bound allows."""
        self._end_emit()
        if len(self.outgoing) == 1:
            return codec.frame(self.outgoing.pop())
        frames: list[bytes] = []
        held: list[bytes] = []
        size = 0
        for message in self.outgoing:
            if size + len(message) > limits.MAX_FRAME_BYTES:
                frames.append(codec.frame(b"".join(held)))
                held, size = [], 0
            held.append(message)
            size += len(message)
        if held:
            frames.append(codec.frame(b"".join(held)))
        self.outgoing.clear()
        return b"".join(frames)


def _cut(text: str) -> str:
    """The part of ``text`` that a message has room for."""
    return text.encode(errors="replace")[: limits.MAX_TEXT_BYTES].decode(errors="ignore")


def _not_there(device_id: int, space: int, address: int, size: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        ErrorCode.DEVICE,
        f"an access of {size} bytes at {address:#x} (space {space}) names device "
        f"{device_id}, which does not answer there",
    )
