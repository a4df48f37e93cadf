"""The delay relay: a process between a client and a server that makes the way between them longer.

``python -m kvmshim.lab.relay HOST PORT SERVER_HOST SERVER_PORT RTT_NS LOSS`` says ``listening`` on
standard output once clients can come.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kvmshim.lab.delayline import DelayLine, Loss

_READ_BYTES = 1 << 16
_CONNECT_TIMEOUT_S = 5.0
#: About what it takes to wake up. The relay sleeps until so long before it has something to do.
_WAKING_NS = 100_000
READY = "listening"


class _Flow:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: DelayLine) -> None:
        self.source = source
        self.sink = sink
        self.blocked = False  # bytes have arrived that the sink doesn't take yet
        self.scheduled = False
        self.finished = False
        self._line = line

    @property
    def wants_input(self) -> bool:
        return self._line.room > 0

    @property
    def due_ns(self) -> int | None:
        """When there is something to do without anything happening."""
        return None if self.blocked or self.finished else self._line.due_ns

    def fill(self, now_ns: int) -> None:
        """Reads what has come, as far as there is room."""
        with contextlib.suppress(BlockingIOError):
            if data := self.source.recv(min(_READ_BYTES, self._line.room)):
                self._line.put(data, now_ns)
            else:
                self._line.end(now_ns)

    def drain(self, now_ns: int) -> None:
        """Writes what has arrived, as far as the sink takes it."""
        self.blocked = False
        while (piece := self._line.ready(now_ns)) is not None:
            try:
                self._line.take(self.sink.send(piece))
            except BlockingIOError:
                self.blocked = True
                return
        if self._line.has_ended(now_ns) and not self.finished:
            self.finished = True
            self.sink.shutdown(socket.SHUT_WR)


class _Pair:
    """A connection: a client's socket, one to the server, and a flow in each direction."""

    def __init__(self, client: socket.socket, server: socket.socket, line: Callable[[], DelayLine]):
        self.sockets = (client, server)
        self.flows = (_Flow(client, server, line()), _Flow(server, client, line()))
        self.closed = False
        self.interest = {client.fileno(): 0, server.fileno(): 0}
        for sock in self.sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wanted(self, descriptor: int) -> int:
        """The events of a socket that matter now."""
        events = 0
        for flow in self.flows:
            if flow.source.fileno() == descriptor and flow.wants_input:
                events |= select.EPOLLIN
            if flow.sink.fileno() == descriptor and flow.blocked:
                events |= select.EPOLLOUT
        return events


class Relay:
    """Passes on what comes to a listening socket; a ``line()`` for each direction delays it."""

    def __init__(
        self, listener: socket.socket, server: tuple[str, int], line: Callable[[], DelayLine]
    ) -> None:
        """``server`` is where connections go on to. Takes ``listener`` over."""
        self._listener = listener
        self._server = server
        self._line = line
        self._pairs: dict[int, _Pair] = {}
        self._alarms: list[tuple[int, int, _Pair, _Flow]] = []
        self._numbers = itertools.count()
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Ends all connections."""
        for pair in set(self._pairs.values()):
            self._close(pair)
        self._epoll.close()
        self._listener.close()

    def step(self, longest_s: float | None = None) -> None:
        """Waits until there is something to do, at most for so long, and does it."""
        # epoll counts in milliseconds; select, looking at the epoll set, in microseconds.
        select.select([self._epoll.fileno()], [], [], self._pause_s(longest_s))
        for descriptor, events in self._epoll.poll(0):
            if descriptor == self._listener.fileno():
                self._accept()
            elif pair := self._pairs.get(descriptor):
                self._attend(pair, partial(self._on_event, pair, descriptor, events))
        while self._alarms and self._alarms[0][0] <= time.monotonic_ns():
            _, _, pair, flow = heapq.heappop(self._alarms)
            flow.scheduled = False
            if not pair.closed:
                self._attend(pair, partial(flow.drain, time.monotonic_ns()))

    def _pause_s(self, longest_s: float | None) -> float | None:
        if not self._alarms:
            return longest_s
        due_s = max(0, self._alarms[0][0] - time.monotonic_ns() - _WAKING_NS) / 1e9
        return due_s if longest_s is None else min(due_s, longest_s)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        try:
            server = socket.create_connection(self._server, timeout=_CONNECT_TIMEOUT_S)
        except OSError:
            client.close()
            return
        pair = _Pair(client, server, self._line)
        self._pairs.update({sock.fileno(): pair for sock in pair.sockets})
        self._attend(pair, lambda: None)

    def _on_event(self, pair: _Pair, descriptor: int, events: int) -> None:
        now_ns = time.monotonic_ns()
        readable = events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP)
        for flow in pair.flows:
            if flow.sink.fileno() == descriptor and flow.blocked:
                flow.drain(now_ns)
            if flow.source.fileno() == descriptor and flow.wants_input and readable:
                flow.fill(now_ns)

    def _attend(self, pair: _Pair, action: Callable[[], None]) -> None:
        """Does something for a connection, then looks at what it waits for."""
        try:
            action()
        except OSError:  # one side was reset: the other is at once
            self._close(pair)
            return
        if all(flow.finished for flow in pair.flows):
            self._close(pair)
            return
        for flow in pair.flows:
            if not flow.scheduled and (due_ns := flow.due_ns) is not None:
                flow.scheduled = True
                heapq.heappush(self._alarms, (due_ns, next(self._numbers), pair, flow))
        for descriptor in pair.interest:
            self._watch(pair, descriptor, pair.wanted(descriptor))

    def _watch(self, pair: _Pair, descriptor: int, events: int) -> None:
        """A socket without wanted events leaves the set: epoll would tell of its hang-up still."""
        before, pair.interest[descriptor] = pair.interest[descriptor], events
        if events and not before:
            self._epoll.register(descriptor, events)
        elif before and not events:
            self._epoll.unregister(descriptor)
        elif events != before:
            self._epoll.modify(descriptor, events)

    def _close(self, pair: _Pair) -> None:
        pair.closed = True
        for descriptor in pair.interest:
            self._watch(pair, descriptor, 0)
            del self._pairs[descriptor]
        for sock in pair.sockets:
            sock.close()


def main(arguments: Sequence[str]) -> None:
    """Relays until the process is ended."""
    host, port, server_host, server_port, rtt_ns, share = arguments
    _wake_in_time()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loss = Loss(float(share), int(rtt_ns), random.Random())

    def line() -> DelayLine:
        # Half of an odd number is rounded up: a round trip is never shorter than asked for.
        return DelayLine(-(-int(rtt_ns) // 2), penalty_ns=loss.penalty_ns)

    listener = socket.create_server((host, int(port)), backlog=128)
    listener.setblocking(False)
    relay = Relay(listener, (server_host, int(server_port)), line)
    print(READY, flush=True)
    while True:
        relay.step()


def _wake_in_time() -> None:
    """Lets the kernel end sleeps when they are over, and not up to 50 µs later (proc(5))."""
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1")


if __name__ == "__main__":
    main(sys.argv[1:])
