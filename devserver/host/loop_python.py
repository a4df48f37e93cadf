"""The data loop in Python: the reference that :mod:`devserver.host.loop_native` must equal."""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from devserver.host.client import (
    HIGH_OUT_BYTES,
    MAX_OUT_BYTES,
    NOT_READ,
    Client,
    LoopEvent,
    LoopEventKind,
    OnDeadline,
)
from devserver.machine.turns import TURN_NS, Timed
from devserver.waiting import SPIN_NS

log = logging.getLogger("devserver.host")

_RECEIVE_BYTES = 64 * 1024
#: epoll's time-outs are whole milliseconds; nearer times are waited for with select.
_FINE_WAIT_NS = 20_000_000


class _SendBuffer:
    """What waits to be sent to a client, and what epoll is to tell of it."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.interest = select.EPOLLIN


class PythonLoop:
    """A :class:`devserver.host.client.Loop`."""

    shares_memory = False

    def __init__(self, wait: str, on_deadline: OnDeadline, turn_ns: int = TURN_NS) -> None:
        self._wait = wait
        self._on_deadline = on_deadline
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._lines: dict[int, _SendBuffer] = {}
        self._ready: list[tuple[int, int]] = []
        #: Those who have said more than there was time for; one has a turn after each look.
        self._behind: deque[Client] = deque()
        self._turn = Timed(turn_ns)
        self._due_ns = 0
        self._looked = False
        #: Clients of whom something is to be told, and those who do not read what they are told.
        self._stirred: list[Client] = []
        self._full: list[Client] = []

    def close(self) -> None:
        self._epoll.close()

    def watch(self, fd: int, on: bool) -> None:
        if on:
            self._epoll.register(fd, select.EPOLLIN)
        else:
            self._epoll.unregister(fd)

    def add(self, client: Client) -> None:
        self._epoll.register(client.fd, select.EPOLLIN)
        self._clients[client.fd] = client
        self._lines[client.fd] = _SendBuffer()
        client.session.turn = client.session.bus.turn = self._turn
        client.session.outbox.on_effect = partial(self._stirred.append, client)

    def remove(self, client: Client) -> None:
        self._epoll.unregister(client.fd)
        del self._clients[client.fd], self._lines[client.fd]
        self._ready = [(fd, event) for fd, event in self._ready if fd != client.fd]
        self._full = [other for other in self._full if other is not client]
        self._behind = deque(other for other in self._behind if other is not client)

    def begin_turn(self) -> None:
        self._turn.begin()

    def heard_ns(self, client: Client) -> int:
        return client.heard_ns

    def run_once(self, due_ns: int) -> LoopEvent:
        self._due_ns = due_ns
        while True:
            while self._ready or self._full:
                if self._full:
                    return LoopEvent(LoopEventKind.GONE, client=self._full.pop(), why=NOT_READ)
                fd, event = self._ready.pop(0)
                if fd not in self._clients:
                    return LoopEvent(LoopEventKind.READY, fd=fd)
                if (found := self._guarded(self._clients[fd], event)) is not None:
                    return found
            if self._behind and self._looked:
                self._looked = False
                if (found := self._guarded(self._behind.popleft())) is not None:
                    return found
            if (found := self._look()) is not None:
                return found

    def send(self, client: Client, data: bytes) -> bool:
        room = self._put(client, data)
        self._tell_others(client)
        return room

    def _tell_others(self, client: Client) -> None:
        """Sends what other clients are to hear of what one did."""
        while self._stirred:
            other = self._stirred.pop(0)
            if other is client or other.fd not in self._clients:
                continue
            other.session.outbox.flush_effects()
            if not self._put(other, other.session.outbox.take_bytes()):
                self._full.append(other)
            self._due_ns = self._on_deadline(other)

    def _put(self, client: Client, data: bytes) -> bool:
        line = self._lines[client.fd]
        sent = 0
        if not data:
            return True
        try:
            if not line.out:
                sent = client.sock.send(data)
        except BlockingIOError:
            pass
        except OSError:
            return True  # the next receive says what is wrong
        line.out += data[sent:]
        self._wait_for_room(client, line)
        return len(line.out) <= MAX_OUT_BYTES

    # -- one client's turn --------------------------------------------------------------------

    def _guarded(self, client: Client, event: int | None = None) -> LoopEvent | None:
        """Serves a client's event, or (None) goes on with what it has said."""
        try:
            return self._go_on(client) if event is None else self._serve(client, event)
        except BaseException:
            log.exception("%s: internal error", client.session.peer)
            return LoopEvent(LoopEventKind.BROKEN, client=client)

    def _serve(self, client: Client, event: int) -> LoopEvent | None:
        if event & select.EPOLLOUT:
            self._send_rest(client)
        if not event & ~select.EPOLLOUT or client.session.is_behind:
            return None
        try:
            data = client.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            return LoopEvent(LoopEventKind.GONE, client=client, why=error.strerror or str(error))
        if not data:
            return LoopEvent(LoopEventKind.GONE, client=client)
        client.heard_ns = time.monotonic_ns()
        self._turn.begin()
        client.session.hear(data, client.heard_ns)
        return self._heard(client)

    def _go_on(self, client: Client) -> LoopEvent | None:
        self._turn.begin()
        client.heard_ns = time.monotonic_ns()  # it was heard, and is not silent yet
        client.session.go_on(client.heard_ns)
        return self._heard(client)

    def _heard(self, client: Client) -> LoopEvent | None:
        """Sends what the session says; it goes on at once, later, or when that is read."""
        if not self.send(client, client.session.outbox.take_bytes()):
            return LoopEvent(LoopEventKind.GONE, client=client, why=NOT_READ)
        self._due_ns = self._on_deadline(client)
        self._come_back(client)
        return LoopEvent(LoopEventKind.GONE, client=client) if client.session.finished else None

    def _come_back(self, client: Client) -> None:
        """Has a client that is behind go on, unless it is to read first."""
        if (
            client.session.is_behind
            and client not in self._behind
            and len(self._lines[client.fd].out) < HIGH_OUT_BYTES
        ):
            self._behind.append(client)

    def _send_rest(self, client: Client) -> None:
        line = self._lines[client.fd]
        try:
            del line.out[: client.sock.send(line.out)]
        except BlockingIOError:
            pass
        except OSError:
            line.out.clear()  # the next receive says what is wrong
        self._wait_for_room(client, line)
        self._come_back(client)

    def _wait_for_room(self, client: Client, line: _SendBuffer) -> None:
        interest = select.EPOLLIN if len(line.out) < HIGH_OUT_BYTES else 0
        if line.out:
            interest |= select.EPOLLOUT
        if interest != line.interest:
            line.interest = interest
            self._epoll.modify(client.fd, interest)

    # -- waiting ------------------------------------------------------------------------------

    def _look(self) -> LoopEvent | None:
        """Waits for something to do: without sleeping at first, if that is wanted."""
        self._looked = True
        if time.monotonic_ns() >= self._due_ns:
            self._ready = self._epoll.poll(0)
            return LoopEvent(LoopEventKind.TIME)
        if self._behind:
            self._ready = self._epoll.poll(0)
            return None
        if self._wait != "block" and self._spin(self._epoll.poll):
            return None
        self._ready = self._sleep()
        return None if self._ready else LoopEvent(LoopEventKind.SIGNAL)

    def _spin(self, poll: Callable[[float], list[tuple[int, int]]]) -> bool:
        until_ns = self._due_ns
        if self._wait == "adaptive":
            until_ns = min(until_ns, time.monotonic_ns() + SPIN_NS)
        while time.monotonic_ns() < until_ns:
            self._ready = poll(0)
            if self._ready:
                return True
        return False

    def _sleep(self) -> list[tuple[int, int]]:
        wait_ns = max(0, self._due_ns - time.monotonic_ns())
        if 0 < wait_ns < _FINE_WAIT_NS:
            select.select([self._epoll.fileno()], (), (), wait_ns / 1e9)
            wait_ns = 0
        return self._epoll.poll(min(wait_ns / 1e9, 1e6))
