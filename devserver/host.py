"""The data loop: sockets to sessions and back. One process, one thread, ``epoll``, no locks.

After an access was served the loop spins for a short while before it sleeps, because the next one
usually follows at once and waking up costs more than the access itself; it stops spinning when
that does not pay (:class:`Spin`).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from devserver import hotloop
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import Busy
from devserver.session import Identity, Session
from devserver.transport import stop_listening, tune

log = logging.getLogger("devserver.host")

#: Small enough to come from the allocator's own heap: a buffer is made for every attempt.
_RECEIVE_BYTES = 16 * 1024
#: Bytes that may wait for a client that does not read; then it is given up.
_MAX_OUT_BYTES = 8 << 20
#: Above this, nothing more is read from a client until it has taken what waits for it.
_HIGH_OUT_BYTES = 1 << 20
#: epoll's time-outs are whole milliseconds; nearer deadlines are waited for with select.
_FINE_WAIT_NS = 20_000_000
#: A client that never stops asking is served for so long before a look at the others.
_SLICE_NS = 2_000_000


class Spin:
    """Decides for how long to poll without sleeping after something was served."""

    SCORE_MAX = 16
    PROBE_EVERY = 32

    def __init__(self, mode: str = "adaptive", spin_ns: int = 100_000) -> None:
        if mode not in ("adaptive", "spin", "block"):
            raise ValueError(f"wait mode '{mode}' is none of adaptive, spin, block")
        self.mode = mode
        self.spin_ns = spin_ns
        self._score = self.SCORE_MAX
        self._turns = 0

    def wanted(self) -> bool:
        """Whether to spin after the access that was just served."""
        if self.mode != "adaptive":
            return self.mode == "spin"
        self._turns += 1
        return self._score > 0 or self._turns % self.PROBE_EVERY == 0

    def learn(self, paid: bool) -> None:
        """The spin ended because something came (``paid``), or because its time was over."""
        self._score = min(self._score + 1, self.SCORE_MAX) if paid else self._score // 2


class _Client:
    """A connected client: its socket, its session, what waits to be sent."""

    def __init__(self, sock: socket.socket, session: Session, now_ns: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.session = session
        self.out = bytearray()
        self.heard_ns = now_ns
        self.asked_ns = 0
        self.timer_ns: int | None = None
        self.interest = select.EPOLLIN


class _Timer(NamedTuple):
    due_ns: int
    order: int
    fd: int


class DeviceHost:
    """Serves device models to the clients that connect to its sockets."""

    def __init__(
        self,
        identity: Identity,
        *,
        max_clients: int = 1024,
        spin: Spin | None = None,
        until_idle: bool = False,
        engine: str = "native",
    ) -> None:
        """``until_idle``: :meth:`run` returns when the last client is gone. ``engine`` is
        ``native``, or ``python`` for the reference that the native one must equal."""
        self._identity = identity
        self._max_clients = max_clients
        self._spin = spin or Spin()
        self._until_idle = until_idle
        self._ids = itertools.count(1)
        self._order = itertools.count()
        self._listeners: dict[int, socket.socket] = {}
        self._clients: dict[int, _Client] = {}
        self._timers: list[_Timer] = []
        self._epoll = select.epoll()
        self._stopping = False
        self._next_check_ns = 0
        spin_ns = -1 if self._spin.mode == "spin" else self._spin.spin_ns
        self._hot = hotloop.HotLoop(self._epoll.fileno(), spin_ns) if engine == "native" else None

    # -- set-up -------------------------------------------------------------------------------

    def add_listener(self, sock: socket.socket) -> None:
        """Takes clients from a listening socket; the host owns it from now on."""
        self._listeners[sock.fileno()] = sock
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def add_client(self, sock: socket.socket, peer: str) -> None:
        """Serves a socket that is already connected; the host owns it from now on."""
        tune(sock)
        session = Session(self._identity, lambda: next(self._ids), peer)
        client = _Client(sock, session, time.monotonic_ns())
        self._clients[client.fd] = client
        self._epoll.register(client.fd, client.interest)

    def stop(self) -> None:
        """Makes :meth:`run` return; may be called from a signal handler."""
        self._stopping = True

    # -- the loop -----------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until :meth:`stop`."""
        hot = contextlib.closing(self._hot) if self._hot else contextlib.nullcontext()
        with hot, contextlib.closing(self._epoll), self._woken_by_signals():
            try:
                while not self._stopping and not (self._until_idle and not self._clients):
                    self._turn(self._epoll_events())
            finally:
                self._shut_down()

    def _turn(self, events: Sequence[tuple[int, int]]) -> None:
        for fd, event in events:
            if fd in self._listeners:
                self._accept(self._listeners[fd])
            elif fd in self._clients:
                self._serve(self._clients[fd], event)
        self._run_timers()
        self._look_after_clients()
        if len(events) == 1 and events[0][0] in self._clients and self._spin.wanted():
            self._spin_on(self._clients[events[0][0]])

    def _spin_on(self, client: _Client) -> None:
        """Polls the client that was just served, which most likely has more to say."""
        received = client.session.connection.received
        slice_ns = time.monotonic_ns() + _SLICE_NS
        try:
            while client.fd in self._clients and not self._stopping and not client.out:
                if time.monotonic_ns() >= slice_ns:
                    if self._others_wait(client):
                        break
                    slice_ns = time.monotonic_ns() + _SLICE_NS
                elif not self._poll(client, slice_ns):
                    break
        except OSError as error:
            self._drop(client, error.strerror)
        except Exception:
            self._give_up(client)
        if self._spin.mode == "adaptive":
            self._spin.learn(client.session.connection.received != received)

    def _others_wait(self, client: _Client) -> bool:
        """Does what is due by the clock; whether another descriptor wants attention."""
        self._run_timers()
        self._look_after_clients()
        return any(fd != client.fd for fd, _ in self._epoll.poll(0))

    def _poll(self, client: _Client, until_ns: int) -> bool:
        """Serves what a client says until ``until_ns``; False when it says nothing more."""
        session = client.session
        if self._hot is None or not session.is_attached():
            data = self._poll_for(client)
            if data:
                self._take(client, data)
            return bool(data)
        before = session.connection.received
        due_ns = min(until_ns, self._timers[0].due_ns) if self._timers else until_ns
        found, to_send, data = self._hot.run(client.fd, session, due_ns)
        if session.connection.received != before:
            client.heard_ns = time.monotonic_ns()
        if to_send or not data:
            self._answer(client, to_send)
        if data:
            self._take(client, data)
        elif found == hotloop.CLOSED:
            self._drop(client, "")
        return bool(to_send or data or time.monotonic_ns() >= until_ns)

    def _poll_for(self, client: _Client) -> bytes:
        """The next bytes of a client, or none when the spin is over; closes a dead connection."""
        until_ns = time.monotonic_ns() + self._spin.spin_ns
        turns = 0
        while not self._stopping:
            turns += 1
            try:
                data = client.sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                now_ns = time.monotonic_ns()
                if self._timers and self._timers[0].due_ns <= now_ns:
                    break
                if now_ns >= until_ns and self._spin.mode != "spin":
                    break
                if turns % 64 == 0 and self._epoll.poll(0):
                    break
                continue
            except OSError as error:
                self._drop(client, error.strerror)
                break
            if not data:
                self._drop(client, "")
            return data
        return b""

    def _take(self, client: _Client, data: bytes) -> None:
        """Gives a client's bytes to its session and sends the answer."""
        client.heard_ns = time.monotonic_ns()
        try:
            self._answer(client, client.session.receive(data, client.heard_ns))
        except OSError as error:
            self._drop(client, error.strerror)
        except Exception:
            self._give_up(client)

    def _epoll_events(self) -> list[tuple[int, int]]:
        wait_ns = self._wait_ns()
        if wait_ns is not None and 0 < wait_ns < _FINE_WAIT_NS:
            select.select([self._epoll.fileno()], (), (), wait_ns / 1e9)
            wait_ns = 0
        return self._epoll.poll(None if wait_ns is None else wait_ns / 1e9)

    def _wait_ns(self) -> int | None:
        due = [self._timers[0].due_ns] if self._timers else []
        if self._clients:
            due.append(self._next_check_ns)
        return max(0, min(due) - time.monotonic_ns()) if due else None

    # -- clients ------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, where = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # out of descriptors, say: the others must be served on
            log.error("can't accept a client: %s", error.strerror)
            return
        peer = f"{where[0]}:{where[1]}" if isinstance(where, tuple) else f"client-{sock.fileno()}"
        if len(self._clients) >= self._max_clients:
            log.warning("%s: refused, %d clients are connected", peer, len(self._clients))
            with sock, contextlib.suppress(OSError):
                busy = Busy(f"all {self._max_clients} places of this server are taken")
                sock.setblocking(False)
                sock.send(Connection(Role.SERVER).send(busy))
            return
        self.add_client(sock, peer)
        log.info("%s: connected", peer)

    def _serve(self, client: _Client, event: int) -> None:
        try:
            if event & select.EPOLLOUT:
                self._send(client)
            if event & ~select.EPOLLOUT:
                data = client.sock.recv(_RECEIVE_BYTES)
                if not data:
                    self._drop(client, "")
                    return
                self._take(client, data)
        except BlockingIOError:
            pass
        except OSError as error:
            self._drop(client, error.strerror)

    def _answer(self, client: _Client, answer: bytes) -> None:
        if answer:
            self._send(client, answer)
        self._schedule(client)
        if client.session.finished and client.fd in self._clients:
            self._drop(client, "")

    def _send(self, client: _Client, data: bytes = b"") -> None:
        """Sends ``data`` behind what waits already; what the socket does not take waits."""
        out = client.out
        try:
            if out:
                out += data
                del out[: client.sock.send(out)]
            elif data:
                out += data[client.sock.send(data) :]
        except BlockingIOError:
            if not out:
                out += data
        if out or client.interest != select.EPOLLIN:
            self._wait_for_room(client)

    def _wait_for_room(self, client: _Client) -> None:
        waiting = len(client.out)
        if waiting > _MAX_OUT_BYTES:
            self._drop(client, f"{waiting} bytes wait for it to read")
            return
        interest = select.EPOLLIN if waiting < _HIGH_OUT_BYTES else 0
        if waiting:
            interest |= select.EPOLLOUT
        if interest != client.interest:
            client.interest = interest
            self._epoll.modify(client.fd, interest)

    def _drop(self, client: _Client, why: str | None) -> None:
        """Closes a connection and forgets its session."""
        if self._clients.pop(client.fd, None) is None:
            return
        log.info("%s: gone%s", client.session.peer, f" ({why})" if why else "")
        self._epoll.unregister(client.fd)
        client.sock.close()

    def _give_up(self, client: _Client) -> None:
        """A defect in this server met this client: it ends, the others go on."""
        log.exception("%s: internal error", client.session.peer)
        with contextlib.suppress(Exception):
            client.sock.send(client.session.end(ErrorCode.INTERNAL, "internal error of the server"))
        self._drop(client, "internal error")

    # -- time ---------------------------------------------------------------------------------

    def _schedule(self, client: _Client) -> None:
        due_ns = client.session.next_deadline_ns()
        if due_ns is not None and due_ns != client.timer_ns:
            heapq.heappush(self._timers, _Timer(due_ns, next(self._order), client.fd))
        client.timer_ns = due_ns

    def _run_timers(self) -> None:
        while self._timers and self._timers[0].due_ns <= time.monotonic_ns():
            timer = heapq.heappop(self._timers)
            client = self._clients.get(timer.fd)
            if client is None or client.timer_ns != timer.due_ns:
                continue  # an older deadline, overtaken since
            client.timer_ns = None
            try:
                self._answer(client, client.session.advance(time.monotonic_ns()))
            except OSError as error:
                self._drop(client, error.strerror)
            except Exception:
                self._give_up(client)

    def _look_after_clients(self) -> None:
        """Asks silent clients for a sign of life, and gives up those that show none."""
        now_ns = time.monotonic_ns()
        if now_ns < self._next_check_ns:
            return
        identity = self._identity
        patience_ns = identity.deadline_ns - identity.heartbeat_ns
        self._next_check_ns = now_ns + min(identity.heartbeat_ns, patience_ns) // 2
        for client in list(self._clients.values()):
            asked = client.asked_ns > client.heard_ns
            try:
                if asked and now_ns - client.asked_ns >= patience_ns:
                    why = f"silent for {(now_ns - client.heard_ns) / 1e9:.1f} s"
                    self._send(client, client.session.end(ErrorCode.TIMEOUT, why))
                    self._drop(client, why)
                elif not asked and now_ns - client.heard_ns >= identity.heartbeat_ns:
                    client.asked_ns = now_ns
                    self._answer(client, client.session.ping())
            except OSError as error:
                self._drop(client, error.strerror)

    # -- the end ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Lets a signal end the wait in epoll, so that its handler's stop() is seen."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(reader, select.EPOLLIN)
        try:
            before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        except ValueError:  # not in the main thread: no signals come here
            before = None
        try:
            yield
        finally:
            if before is not None:
                signal.set_wakeup_fd(before)
            os.close(reader)
            os.close(writer)

    def _shut_down(self) -> None:
        for client in list(self._clients.values()):
            with contextlib.suppress(OSError):
                farewell = client.session.end(ErrorCode.SHUTDOWN, "the server is being shut down")
                client.sock.send(bytes(client.out) + farewell)
            self._drop(client, "shutting down")
        for listener in self._listeners.values():
            stop_listening(listener)
