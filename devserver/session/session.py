"""One VM's devices on this server: bytes from its client in, bytes for it out. No sockets.

The owner passes the time (``CLOCK_MONOTONIC``, ns) into every call. A session turns it into VM
time: the client says when VM time runs and stamps its requests with it, and the highest estimate
seen is kept, since it is the one with the least network delay in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from devserver.cluster.directory import Directory
from devserver.identity import Identity
from devserver.machine import fastpath
from devserver.machine.bus import Bus, DeviceFault, Mapped
from devserver.machine.turns import Behind, Endless, Turn
from devserver.machine.vm_clock import LATEST_NS, VmClock
from devserver.protocol import limits
from devserver.protocol.connection import Connection, Role, State
from devserver.protocol.errors import ErrorCode, RemoteProtocolError, cut
from devserver.protocol.messages import (
    Add,
    Attach,
    Batch,
    Clock,
    Detach,
    Direction,
    Error,
    EventKind,
    Feed,
    Hello,
    Join,
    Message,
    MessageType,
    Panel,
    Ping,
    Request,
    Save,
    Status,
    Write,
)
from devserver.session.attached_vm import AttachedVm
from devserver.session.handshake import ServerHandshake
from devserver.session.outbox import Outbox
from devserver.session.refusals import Refusals
from devserver.session.vm_table import VmTable

log = logging.getLogger("devserver.session")

_MASKS = {size: (1 << (8 * size)) - 1 for size in (1, 2, 4, 8)}
_SIZES = tuple(_MASKS)
_DIRECTIONS = tuple(Direction)
#: Accesses of one message that are made between two looks at the turn.
_SOME = 32


class Session:
    """The server's end of one connection, from HELLO to the end."""

    def __init__(
        self,
        identity: Identity,
        allot_id: Callable[[], int],
        peer: str,
        vms: VmTable | None = None,
        directory: Directory | None = None,
        refusals: Refusals | None = None,
        may_share: bool = False,
    ) -> None:
        """``peer`` is where the client comes from; ``vms`` are the VMs of the host that this
        is a session of, ``directory`` the servers that it knows and ``refusals`` its count;
        ``may_share``: the data loop can put its bytes into memory that both have."""
        self.connection = Connection(Role.SERVER)
        self.outbox = Outbox(self.connection)
        self.clock = VmClock()
        self.peer = peer
        self.finished = False
        #: Posted writes are acknowledged at least every so many.
        self.ack_every = max(1, min(limits.ACK_EVERY, identity.window // 4))
        #: When to leave what else the client has said for later (:attr:`is_behind`).
        self.turn: Turn = Endless()
        #: It has said things that are not dealt with yet; :meth:`go_on` does.
        self.is_behind = False
        self._incoming: Iterator[Message] = iter(())
        self._message: Message | None = None
        self._made = 0
        self._data = bytearray()
        self._fault: DeviceFault | None = None
        self.vm = AttachedVm(self.outbox, vms or VmTable(allot_id), self.deliver_messages)
        self._refusals = refusals or Refusals()
        directory = directory or Directory(identity)
        self.handshake = ServerHandshake(
            identity, allot_id, directory, self.outbox, peer, may_share
        )

    @property
    def bus(self) -> Bus:
        """The VM's devices."""
        return self.vm.bus

    # -- what the owner calls -----------------------------------------------------------------

    def receive(self, data: bytes, monotonic_ns: int) -> bytes:
        """Acts on bytes from the client; returns the bytes to send. See :attr:`finished`."""
        self.hear(data, monotonic_ns)
        said = self.outbox.take_bytes()
        while self.is_behind:
            self.go_on(monotonic_ns)
            said += self.outbox.take_bytes()
        return said

    def hear(self, data: bytes, monotonic_ns: int) -> None:
        """Acts on bytes from the client; what is to be said waits in the outbox.

        Not while it :attr:`is_behind`.
        """
        self._incoming = self.connection.incoming(data)
        self.go_on(monotonic_ns)

    def go_on(self, monotonic_ns: int) -> None:
        """Acts on what was heard, until the turn is over or enough is said to be sent first."""
        try:
            self.is_behind = not self._handle_in_turn(monotonic_ns)
        except RemoteProtocolError as error:
            self.is_behind = False
            self._message = None
            self._refusals.add(error.code)
            self.refuse(error.code, str(error))

    def _handle_in_turn(self, monotonic_ns: int) -> bool:
        """Whether that was all."""
        while (message := self._message or next(self._incoming, None)) is not None:
            if message is self._message:
                self.connection.go_on_with(message)
            try:
                self._handle(message, monotonic_ns)
            except Behind:
                self._message = message
                self.connection.put_off(message)
                self.outbox.flush_effects()
                return False
            if message is self._message:
                self.vm.look_for_mail()
            self._message, self._made = None, 0
            self.outbox.flush_effects()
            if self.finished:
                break
            if self.turn.is_over() or self.outbox.is_heavy():
                return False
        return True

    def advance(self, monotonic_ns: int) -> bytes:
        """Lets devices do what is due; returns the bytes to send."""
        try:
            self._advance(self.clock.now_ns(monotonic_ns))
        except Behind:
            pass  # the deadline stays, and whoever keeps it comes again
        else:
            self.vm.look_for_mail()
        self.outbox.flush_effects()
        return self.outbox.take_bytes()

    def deliver_messages(self) -> None:
        """Lets devices hear what others have posted to them. While VM time stands it waits."""
        if not self.clock.is_running() or self._fault:
            return
        self.outbox.on_effect()
        try:
            self.bus.deliver_messages(self.clock.now_ns(self.outbox.message_bus.monotonic_ns()))
        except Behind:
            pass  # it is looked for again when the devices are there
        except DeviceFault as fault:
            self.fail(fault)

    def next_deadline_ns(self) -> int | None:
        """The monotonic time at which :meth:`advance` is to be called, if any."""
        due_ns = self.bus.next_deadline_ns()
        if due_ns is None or due_ns > LATEST_NS or self._fault:
            return None
        return self.clock.monotonic_of(due_ns)

    def ping(self) -> bytes:
        """A frame that asks the client for a sign of life; empty before there is a session."""
        if self.connection.state in (State.OPENING, State.GREETING, State.CLOSED):
            return b""
        return self.connection.send(Ping(0))

    def close(self) -> None:
        """The connection is gone, and with it the VM's devices, unless they were left behind."""
        self.vm.close()
        self.handshake.close()

    def end(self, code: ErrorCode, why: str) -> bytes:
        """Ends the conversation from this side; returns the last bytes to send."""
        if not self.finished:
            self.refuse(code, why)
        return self.outbox.take_bytes()

    def refuse(self, code: ErrorCode, why: str) -> None:
        """Ends the conversation, saying why."""
        log.warning("%s: %s", self.peer, why)
        self.outbox.flush_effects()
        self.outbox.send(Error(code, cut(why)))
        self.finished = True

    # -- messages -----------------------------------------------------------------------------

    def _handle(self, message: Message, monotonic_ns: int) -> None:
        """Deals with a message or the rest of it; raises :class:`Behind`."""
        if message is not self._message:
            self._take_time(message, monotonic_ns)
        match message:
            case Request():
                self._on_request(message)
            case Batch():
                self._on_batch(message, monotonic_ns)
            case Feed():
                self._on_feed(message)
            case Clock():
                self._advance(message.time_ns)
                if message.running:
                    self.vm.time_runs()
            case Ping():
                self.outbox.send(self.connection.pong(message.token))
            case Hello():
                self.handshake.hello(message)
                self.finished = self.handshake.forward_to is not None
            case Join():
                self.handshake.join(message)
            case Panel():
                self.handshake.panel = message
                self.finished = True
            case Attach():
                self.handshake.attach(message, self.vm)
                self.bus.turn = self.turn
                self.clock.begin(self.bus.now_ns)
                if self.handshake.takes_leases:
                    self.outbox.before_effects = self._say_leases
            case Save():
                self._on_save(message)
            case Add():
                self._on_add(message, monotonic_ns)
            case Detach():
                self._on_detach(message, monotonic_ns)
            case Error():
                log.warning("%s: the client gave up: %s", self.peer, message.message)
                self.finished = True

    def _take_time(self, message: Message, monotonic_ns: int) -> None:
        """Checks the VM time that a message names, if it names one, and learns from it."""
        time_ns = getattr(message, "time_ns", None)
        if time_ns is None:
            return
        if not isinstance(message, Clock):
            self.clock.observe(time_ns, monotonic_ns)
            return
        if not self.bus.slots:  # nobody would have to make up for any time
            self.clock.begin(time_ns)
        self.clock.set(time_ns, bool(message.running), monotonic_ns)

    def _on_save(self, save: Save) -> None:
        self._advance(save.time_ns)
        self.outbox.flush_effects()
        try:
            status, data = self.vm.save(save)
        except DeviceFault as fault:
            self.fail(fault)
            status, data = Status.FAULT, cut(str(fault)).encode()
        self.outbox.flush_effects()
        self.outbox.send_numbered(MessageType.STATE, save.seq, status, tail=data)

    def _on_add(self, add: Add, monotonic_ns: int) -> None:
        self._advance(add.time_ns)
        status, data = self.vm.add(add, self.clock.latest_likely_ns(monotonic_ns))
        self.outbox.flush_effects()
        self.outbox.send_numbered(MessageType.ADDED, add.seq, status, tail=data)

    def _on_detach(self, detach: Detach, monotonic_ns: int) -> None:
        if detach.keep and self._fault is None:
            self._advance(detach.time_ns)
        if detach.keep and self._fault is None:
            self.vm.detach(monotonic_ns)
        self.finished = True

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
            self.fail(fault)
            status = Status.FAULT
        self.outbox.flush_effects()
        if request.direction == Direction.IN:
            self.outbox.send_numbered(MessageType.FEEDBACK, request.seq, status, tail=data)
        else:
            self.outbox.send_numbered(MessageType.FINISH, request.seq, status)

    def _read(self, mapped: Mapped, request: Request) -> bytes:
        size, count, bus = request.size, request.elements, self.bus
        if count == 1:
            value = bus.read_at(mapped, request.address, size, request.time_ns)
            return value.to_bytes(size, "little")
        space = mapped.region.space
        while self._made < count:
            some = min(count - self._made, _SOME * 2)
            values = bus.read_elements(space, request.address, size, some, request.time_ns)
            self._made += some
            self._data += b"".join([value.to_bytes(size, "little") for value in values])
            if self._made < count:
                self._look_at_turn()
        data, self._data = bytes(self._data), bytearray()
        return data

    def _write(self, mapped: Mapped, request: Request) -> None:
        space, size, data = mapped.region.space, request.size, request.data
        while (start := self._made * size) < len(data):
            value = int.from_bytes(data[start : start + size], "little")
            self.bus.write(space, request.address, size, value, request.time_ns)
            self._made += 1
            if self._made % _SOME == 0 and start + size < len(data):
                self._look_at_turn()

    def _look_at_turn(self) -> None:
        """Raises :class:`Behind` in the middle of a message, where it is others' turn."""
        if self.turn.is_over() or self.outbox.is_heavy():
            raise Behind

    def _on_batch(self, batch: Batch, monotonic_ns: int) -> None:
        likely_ns = self.clock.latest_likely_ns(monotonic_ns)
        for index in range(self._made, len(batch.writes)):
            if index % _SOME == 0 and index > self._made:
                self._made = index
                self._look_at_turn()
            self._made = index
            time_ns = batch.writes[index].time_ns
            if time_ns > likely_ns:
                self.clock.observe(time_ns, monotonic_ns)  # says what is wrong
            self._post(batch.writes[index])
        if batch.writes:
            self.clock.observe(batch.writes[-1].time_ns, monotonic_ns)
        self.outbox.flush_effects()
        owes_ack = self.vm.owes_ack()  # asked in any case: any ACK will do
        if owes_ack or self.connection.unacknowledged_writes() >= self.ack_every:
            self.outbox.send(self.connection.acknowledgement())

    def _post(self, write: Write) -> None:
        """Makes one posted access."""
        device_id, direction, space, address, size, time_ns, value = write
        mapped = self.bus.find(space, address)
        if mapped is None or mapped.slot.device_id != device_id or address + size > mapped.end:
            raise _not_there(device_id, space, address, size)
        if size not in _SIZES:
            raise RemoteProtocolError(ErrorCode.MALFORMED, f"BATCH with a write of {size} bytes")
        if direction not in _DIRECTIONS:
            raise RemoteProtocolError(
                ErrorCode.MALFORMED, f"BATCH with an access of direction {direction}"
            )
        if self._fault:
            return
        try:
            if direction:
                value &= _MASKS[size]
                self.bus.write_at(mapped, address, size, value, time_ns, posted=True)
            else:
                self.bus.read_at(mapped, address, size, time_ns, posted=True)
        except DeviceFault as fault:
            self.fail(fault)

    def _on_feed(self, feed: Feed) -> None:
        slot = self.bus.slots.get(feed.device_id)
        if slot is None or feed.channel >= len(slot.device.feeds):
            raise RemoteProtocolError(
                ErrorCode.DEVICE,
                f"FEED for device {feed.device_id}, channel {feed.channel}, which is not there",
            )
        if self._fault:
            return
        try:
            self.bus.feed(feed.device_id, feed.channel, feed.data, feed.time_ns, end=bool(feed.end))
        except OverflowError as error:
            raise RemoteProtocolError(ErrorCode.MALFORMED, str(error)) from error
        except DeviceFault as fault:
            self.fail(fault)

    # -- what a data loop that decodes by itself calls (devserver/host/loop_native.py) -------------

    def is_direct(self) -> bool:
        """Whether requests and batches need not come here: a machine runs, and none of it failed"""
        return (
            self.connection.state is State.ATTACHED
            and self.clock.is_running()
            and self._fault is None
        )

    def has_failed(self) -> bool:
        """Whether a model of its VM has failed."""
        return self._fault is not None

    def bind(
        self,
        device_id: int,
        direction: int,
        space: int,
        address: int,
        size: int,
        moved: Callable[[], None],
    ) -> fastpath.Bound | None:
        """What an access of one element does, and a run of it; None if it is to be refused.

        ``moved`` is called when :meth:`next_deadline_ns` has changed.
        """
        mapped = self.bus.find(space, address)
        if mapped is None or mapped.slot.device_id != device_id or address + size > mapped.end:
            return None
        return fastpath.bind(self.bus, mapped, direction, address, size, moved)

    def fail(self, fault: DeviceFault) -> None:
        """A model failed: its VM stops, with the model's name; nobody else is harmed."""
        self._fault = fault
        logging.getLogger("devserver.fault").error("%s: %s\n%s", self.peer, fault, fault.details)
        text = cut(f"{fault}\n{fault.details}").encode()
        self.outbox.queue_effect(MessageType.EVENT, 0, EventKind.FAULT, 0, tail=text)

    # -- inner workings -----------------------------------------------------------------------

    def _say_leases(self) -> None:
        """Says which leases have changed: before whatever else the same access caused."""
        fault = None if self._fault else self.vm.say_leases()
        if fault is not None:
            self.fail(fault)

    def _claimed(self, access: Request | Write) -> Mapped:
        """The region that an access is for; the peer's mistake if it is not the device's."""
        mapped = self.bus.find(access.space, access.address)
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
            and request.direction in _DIRECTIONS
        )

    def _advance(self, now_ns: int) -> None:
        if self._fault:
            return
        try:
            self.bus.advance(now_ns)
        except DeviceFault as fault:
            self.fail(fault)


def _not_there(device_id: int, space: int, address: int, size: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        ErrorCode.DEVICE,
        f"an access of {size} bytes at {address:#x} (space {space}) names device "
        f"{device_id}, which does not answer there",
    )
