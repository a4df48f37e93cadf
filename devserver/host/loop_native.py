"""The data loop in C: it waits, receives, decodes, encodes and sends; Python only runs the models.

It does what :mod:`devserver.host.loop_python` does. An access is decoded in C and comes here as
the number of a function to call (:mod:`devserver.machine.fastpath`); what is anything else goes to
the session as bytes. Counters and clocks of sessions lie in memory that both sides use.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

from devserver._native import ffi, lib
from devserver.host.client import NOT_READ, Client, LoopEvent, LoopEventKind, OnDeadline
from devserver.machine import fastpath
from devserver.machine.slot import DeviceFault
from devserver.machine.turns import TURN_NS, Behind, Kept
from devserver.protocol.connection import COUNTERS
from devserver.protocol.messages import Status
from devserver.waiting import SPIN_NS

log = logging.getLogger("devserver.host")

_MODES = {
    "adaptive": lib.SPIN_WAIT_ADAPTIVE,
    "spin": lib.SPIN_WAIT_SPIN,
    "block": lib.SPIN_WAIT_BLOCK,
}
#: The numbers of ``struct serve_exchange``, by index.
_VALUE, _TIME, _STREAM, _COUNT, _RUNS, _ANSWER, _STATUS, _ACK, _PASS, _DUE, _TURN_END = range(11)
_RECEIVED = COUNTERS.index("received")
#: Accesses of a batch between two looks at the turn, to one address and to several.
_SOME, _FEW = 128, 64

#: A run of accesses that is still to be made: what makes it, values and VM times.
_Piece = tuple[fastpath.Run, Any, Any]


def _nobody(value: int, time_ns: int) -> int:
    raise AssertionError("a handle that is not in use")


def _no_run(values: Any, times_ns: Any) -> None:
    raise AssertionError("a handle that is not in use")


class _Stream:
    """What is known of a client here: its C side, and its handles."""

    def __init__(self, client: Client, native: Any) -> None:
        self.client = client
        self.native = native
        #: The VM time of the deadline that the owner was told of.
        self.next_ns = -1
        self.handles: list[int] = []
        #: What it has said last and could not be done in its turn; the session has the rest.
        self.request: tuple[int, int, int] | None = None
        self.pieces: deque[_Piece] = deque()
        #: The session's count when the handles were given out.
        self.rebuilt = 0


class NativeLoop:
    """A :class:`devserver.host.client.Loop`."""

    shares_memory = True

    def __init__(self, wait: str, on_deadline: OnDeadline, turn_ns: int = TURN_NS) -> None:
        self._loop = lib.serve_new(_MODES[wait], SPIN_NS, turn_ns)
        if self._loop == ffi.NULL:
            raise MemoryError("no memory for the data loop")
        self._on_deadline = on_deadline
        self._exchange = _numbers(self._loop, "exchange", "Q")
        self._turn = Kept(self._exchange, _TURN_END)
        self._turn_ns = turn_ns
        self._values = _numbers(self._loop, "values", "Q")
        self._times = _numbers(self._loop, "times", "Q")
        self._handles = _numbers(self._loop, "handles", "I")
        self._run_handles = _numbers(self._loop, "run_handles", "I")
        self._run_counts = _numbers(self._loop, "run_counts", "I")
        self._streams: dict[int, _Stream] = {}
        self._accesses: list[fastpath.Access] = []
        self._posted: list[fastpath.Access] = []
        self._runs: list[fastpath.Run] = []
        self._free: list[int] = []
        #: Clients of whom something is to be told, or whose deadline has changed.
        self._stirred: list[Client] = []
        #: Clients that do not read what they are told.
        self._full: list[Client] = []
        self._others: dict[int, Callable[[], LoopEvent | None]] = {
            lib.SERVE_UNKNOWN: self._unknown,
            lib.SERVE_BYTES: self._bytes,
            lib.SERVE_RESUME: self._resume,
            lib.SERVE_CLOSED: self._closed,
            lib.SERVE_FULL: self._overflow,
            lib.SERVE_TIMER: lambda: LoopEvent(LoopEventKind.TIME),
            lib.SERVE_SIGNAL: lambda: LoopEvent(LoopEventKind.SIGNAL),
            lib.SERVE_OTHER: lambda: LoopEvent(LoopEventKind.READY, fd=self._loop.other_fd),
        }

    def close(self) -> None:
        """Frees the C side; no client may be left."""
        lib.serve_free(self._loop)
        self._loop = ffi.NULL

    def watch(self, fd: int, on: bool) -> None:
        if lib.serve_watch(self._loop, fd, on) < 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno))

    def add(self, client: Client) -> None:
        native = lib.serve_add(self._loop, client.fd, client.fd)
        if native == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self._streams[client.fd] = _Stream(client, native)
        session = client.session
        session.connection.counters = _shared(native, "counters", session.connection.counters)
        session.clock.values = _shared(native, "clock", session.clock.values)
        session.outbox.on_effect = partial(self._stirred.append, client)
        session.turn = session.bus.turn = self._turn

    def remove(self, client: Client) -> None:
        stream = self._streams.pop(client.fd)
        self._full = [other for other in self._full if other is not client]
        connection, clock = client.session.connection, client.session.clock
        connection.counters, clock.values = list(connection.counters), list(clock.values)
        self._forget_handles(stream)
        lib.serve_remove(self._loop, stream.native)

    def _forget_handles(self, stream: _Stream) -> None:
        for handle in stream.handles:
            self._accesses[handle] = self._posted[handle] = _nobody
            self._runs[handle] = _no_run
        self._free += stream.handles
        stream.handles = []

    def send(self, client: Client, data: bytes) -> bool:
        stream = self._streams[client.fd].native
        room = not data or lib.serve_send(self._loop, stream, data, len(data)) == 0
        self._tell_others(client)  # what is to be said to this one is in the data
        return room

    def heard_ns(self, client: Client) -> int:
        return int(self._streams[client.fd].native.heard_ns)

    def begin_turn(self) -> None:
        self._exchange[_TURN_END] = time.monotonic_ns() + self._turn_ns

    def run_once(self, due_ns: int) -> LoopEvent:
        loop, serve_next = self._loop, lib.serve_next
        exchange, accesses, stirred = self._exchange, self._accesses, self._stirred
        batch = lib.SERVE_BATCH
        exchange[_DUE] = due_ns
        found = batch
        while not self._full:
            try:
                while True:
                    found = serve_next(loop)
                    if found >= 0:
                        exchange[_ANSWER] = accesses[found](exchange[_VALUE], exchange[_TIME])
                    elif found == batch:
                        self._batch()
                    elif (event := self._others[found]()) is not None:
                        return event
                    if stirred:
                        self._attend()
                        if self._full:
                            break
            except Behind:
                self._put_off(found)
            except DeviceFault as fault:
                self._fail(fault, is_request=found >= 0)
            except BaseException:
                client = self._current().client
                log.exception("%s: internal error", client.session.peer)
                return LoopEvent(LoopEventKind.BROKEN, client=client)
        return LoopEvent(LoopEventKind.GONE, client=self._full.pop(), why=NOT_READ)

    # -- accesses -----------------------------------------------------------------------------

    def _batch(self) -> None:
        """Does the accesses of a batch, a run of them at a time."""
        count, run_count = self._exchange[_COUNT], self._exchange[_RUNS]
        values, times_ns = self._values[:count].tolist(), self._times[:count].tolist()
        if run_count == count <= _FEW:
            self._one_by_one(zip(self._handles[:count].tolist(), values, times_ns, strict=True))
        elif run_count == 1 and count <= _SOME:
            self._do(((self._runs[self._handles[0]], values, times_ns),))
        else:
            self._do(self._pieces_of(run_count, values, times_ns))
        if self._stirred:
            self._exchange[_ACK] = self._current().client.session.vm.owes_ack()

    def _one_by_one(self, accesses: Iterator[tuple[int, int, int]]) -> None:
        posted = self._posted
        try:
            for handle, value, time_ns in accesses:
                posted[handle](value, time_ns)
        except Behind:
            left = [(handle, value, time_ns), *accesses]
            self._current().pieces = deque((self._runs[h], [v], [t]) for h, v, t in left)
            raise

    def _pieces_of(self, run_count: int, values: list[int], times_ns: list[int]) -> list[_Piece]:
        """The runs of a batch, long ones cut."""
        ends = accumulate(self._run_counts[:run_count].tolist(), initial=0)
        handles = self._run_handles[:run_count].tolist()
        return [
            (
                self._runs[handle],
                values[at : min(at + _SOME, end)],
                times_ns[at : min(at + _SOME, end)],
            )
            for handle, (start, end) in zip(handles, pairwise(ends), strict=True)
            for at in range(start, end, _SOME)
        ]

    def _do(self, pieces: Iterable[_Piece]) -> None:
        """Makes accesses in order; raises :class:`Behind` where the turn is over first."""
        made, left = 0, iter(pieces)
        try:
            for run, values, times_ns in left:
                if made >= _FEW and self._turn.is_over():
                    raise Behind
                run(values, times_ns)
                made += len(values)
        except Behind as behind:
            at = len(values) - (behind.left or len(values))
            self._current().pieces = deque([(run, values[at:], times_ns[at:]), *left])
            raise

    # -- what did not fit into a turn -----------------------------------------------------------

    def _put_off(self, found: int) -> None:
        """The turn is over: what the client said last waits for the next, or the rest of it."""
        stream = self._current()
        if found >= 0:
            stream.request = found, self._exchange[_VALUE], self._exchange[_TIME]
        stream.client.session.connection.counters[_RECEIVED] -= 1  # it is not applied yet
        if self._stirred:
            self._attend()
        lib.serve_pause(self._loop)

    def _resume(self) -> LoopEvent | None:
        """Goes on with what a client has said in an earlier turn."""
        stream = self._current()
        session = stream.client.session
        if session.is_behind:
            session.go_on(time.monotonic_ns())
            return self._heard(stream)
        session.connection.counters[_RECEIVED] += 1
        request, pieces = stream.request, stream.pieces
        if session.has_failed():  # meanwhile
            self._exchange[_STATUS] = Status.OK if request is None else Status.FAULT
        elif request is not None:
            handle, value, time_ns = request
            self._exchange[_ANSWER] = self._accesses[handle](value, time_ns)
        else:
            stream.pieces = deque()
            self._do(pieces)
            self._exchange[_ACK] = session.vm.owes_ack()
        stream.request, stream.pieces = None, deque()
        return None

    def _attend(self) -> None:
        """Puts what an access caused before its answer, and notes deadlines."""
        client = self._stirred[0]  # it is the one whose turn it is
        message_bus = client.session.outbox.message_bus
        if message_bus.rung:
            message_bus.deliver()
            self._tell_others(client)
        self._stirred.clear()
        line = client.session.outbox.take_line()
        if line is None:
            self._speak(client)
        elif lib.serve_put_interrupt(self._loop, *line) < 0:
            raise MemoryError("no memory for an interrupt")
        next_ns, stream = client.session.bus.next_ns, self._streams[client.fd]
        if next_ns != stream.next_ns:
            stream.next_ns = next_ns
            self._exchange[_DUE] = self._on_deadline(client)

    def _tell_others(self, client: Client) -> None:
        """Sends what other clients are to hear of what one did, and notes their deadlines."""
        while self._stirred:
            other = self._stirred.pop(0)
            stream = self._streams.get(other.fd)
            if other is client or stream is None or stream.client is not other:
                continue
            session = other.session
            session.outbox.flush_effects()
            data = session.outbox.take_bytes()
            if data and lib.serve_send(self._loop, stream.native, data, len(data)) != 0:
                self._full.append(other)
            stream.native.direct = session.is_direct()
            stream.next_ns = session.bus.next_ns
            self._exchange[_DUE] = self._on_deadline(other)

    def _speak(self, client: Client) -> None:
        outbox = client.session.outbox
        outbox.flush_effects()
        for message in outbox.hand_over():
            if lib.serve_put(self._loop, message, len(message)) < 0:
                raise MemoryError("no memory for what is to be sent")
        self._streams[client.fd].native.direct = client.session.is_direct()

    def _fail(self, fault: DeviceFault, is_request: bool) -> None:
        stream = self._current()
        stream.client.session.fail(fault)
        stream.native.direct = False
        if is_request or stream.request is not None:
            self._exchange[_STATUS] = Status.FAULT
        else:
            self._exchange[_ACK] = stream.client.session.vm.owes_ack()
        stream.request = None
        self._attend()

    # -- what is rarer ------------------------------------------------------------------------

    def _current(self) -> _Stream:
        return self._streams[self._exchange[_STREAM]]

    def _unknown(self) -> None:
        """Binds an access that the client makes for the first time."""
        stream, access = self._current(), self._loop.access
        moved = partial(self._stirred.append, stream.client)
        bound = stream.client.session.bind(
            access.device_id, access.direction, access.space, access.address, access.size, moved
        )
        if bound is None:
            self._exchange[_PASS] = 1  # the session says what is wrong
            return
        handle = self._free.pop() if self._free else len(self._accesses)
        access.handle = handle
        if lib.serve_bind(stream.native, ffi.addressof(self._loop, "access")) < 0:
            self._free.append(handle)
            self._exchange[_PASS] = 1
            return
        stream.handles.append(handle)
        self._accesses[handle : handle + 1] = [bound.access]
        self._posted[handle : handle + 1] = [bound.posted]
        self._runs[handle : handle + 1] = [bound.run]

    def _bytes(self) -> LoopEvent | None:
        """Hands the session a frame."""
        stream = self._current()
        session = stream.client.session
        data = bytes(ffi.buffer(self._loop.bytes, self._loop.bytes_used))
        session.hear(data, time.monotonic_ns())
        return self._heard(stream)

    def _heard(self, stream: _Stream) -> LoopEvent | None:
        """Sends what the session says, and learns what has become of it."""
        client, session = stream.client, stream.client.session
        self._tell_others(client)
        if session.handshake.shared_behind is not None and not self._share(stream):
            return LoopEvent(LoopEventKind.GONE, client=client, why=os.strerror(ffi.errno))
        self._speak(client)
        self._exchange[_DUE] = self._on_deadline(client)
        if session.vm.rebuilt != stream.rebuilt:  # what an access reaches has changed
            stream.rebuilt = session.vm.rebuilt
            self._forget_handles(stream)
            lib.serve_unbind(stream.native)
        if session.finished:
            lib.serve_flush(self._loop, stream.native)
            return LoopEvent(LoopEventKind.GONE, client=client)
        self._learn(stream)
        if session.is_behind:
            lib.serve_pause(self._loop)
        return None

    def _share(self, stream: _Stream) -> bool:
        """Sends what stands before it in the outbox, and the memory for all that follows."""
        session = stream.client.session
        count, session.handshake.shared_behind = session.handshake.shared_behind, None
        for message in session.outbox.outgoing[:count]:
            if lib.serve_put(self._loop, message, len(message)) < 0:
                raise MemoryError("no memory for what is to be sent")
        del session.outbox.outgoing[:count]
        return bool(lib.serve_share(self._loop, stream.native) == 0)

    @staticmethod
    def _learn(stream: _Stream) -> None:
        native, connection = stream.native, stream.client.session.connection
        native.direct = stream.client.session.is_direct()
        native.server_id, native.vm_id = connection.server_id, connection.vm_id
        native.hypervisor, native.client_id = connection.hypervisor, connection.client_id
        native.window, native.ack_every = connection.window, stream.client.session.ack_every

    def _closed(self) -> LoopEvent:
        number = self._loop.error_number
        why = os.strerror(number) if number else ""
        return LoopEvent(LoopEventKind.GONE, client=self._current().client, why=why)

    def _overflow(self) -> LoopEvent:
        return LoopEvent(LoopEventKind.GONE, client=self._current().client, why=NOT_READ)


def _numbers(native: Any, member: str, letter: str) -> Any:
    """A member of a C struct as an array of numbers (a memoryview)."""
    return memoryview(ffi.buffer(ffi.addressof(native, member))).cast("B").cast(letter)  # type: ignore[call-overload]


def _shared(native: Any, member: str, values: Any) -> Any:
    """Numbers of a session, from now on in a C struct."""
    shared = _numbers(native, member, "Q" if member == "counters" else "q")
    for index, value in enumerate(values):
        shared[index] = value
    return shared
