"""A device host: takes clients, keeps their time, and lets them go. One process, one thread.

A data loop moves the bytes (:mod:`devserver.host.loop_native` or
:mod:`devserver.host.loop_python`). It comes back here for what is rare:
a client that comes or goes, a deadline, a heartbeat, a signal.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from devserver.cluster.directory import Directory
from devserver.cluster.relay import Relay
from devserver.host.client import Client, Loop, LoopEvent, LoopEventKind
from devserver.host.loop_native import NativeLoop
from devserver.host.loop_python import PythonLoop
from devserver.host.roster import Roster
from devserver.identity import Identity
from devserver.machine.turns import TURN_NS
from devserver.machine.watchdog import Watchdog
from devserver.panel.launcher import PanelLauncher
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import Busy, Panel
from devserver.session.refusals import Refusals
from devserver.session.session import Session
from devserver.session.vm_table import DEFAULT_KEEP_NS, VmTable
from devserver.transport import stop_listening, tune
from devserver.waiting import MODEL_TIMEOUT_S

log = logging.getLogger("devserver.host")

#: Later than anything.
_NEVER_NS = (1 << 63) - 1
#: A listener is left alone for so long when there are no descriptors or memory for its clients.
_REST_NS = 200_000_000
#: So many handshakes may be under way at least; or an eighth of all places.
FEW_OPENING = 16
#: For so long deadlines are looked after before clients are served again.
_TIMERS_NS = 4 * TURN_NS
#: Between two pieces of an answer to the panel the clients have their turns.
_PIECE_NS = 500_000
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LOOPS: dict[str, type[NativeLoop] | type[PythonLoop]] = {
    "native": NativeLoop,
    "python": PythonLoop,
}
#: Identifiers that a host gives; a registry's are smaller.
FIRST_OWN_ID = 1 << 20


class _Timer(NamedTuple):
    due_ns: int
    order: int
    client: Client


class DeviceHost:
    """Serves device models to the clients that connect to its sockets."""

    def __init__(
        self,
        identity: Identity,
        *,
        max_clients: int = 1024,
        wait: str = "adaptive",
        until_idle: bool = False,
        engine: str = "native",
        keep_ns: int = DEFAULT_KEEP_NS,
        route: str = "auto",
        panel: PanelLauncher | None = None,
        model_timeout_s: float = MODEL_TIMEOUT_S,
        homes: Mapping[str, str] | None = None,
    ) -> None:
        """``engine`` is ``native``, or ``python`` for the reference that the native one must
        equal; ``wait`` is ``adaptive``, ``spin`` or ``block``. ``until_idle``: :meth:`run` returns
        when the last client is gone. ``keep_ns``: how long a VM's devices wait for it when its
        client has left them behind. ``route``: how clients come to the devices of I/O servers
        (:mod:`devserver.cluster.directory`). ``panel``: where those go who want the control panel;
        None: there is none. ``model_timeout_s``: how long a call of a model may take.
        ``homes``: kinds of devices that one I/O server alone has, with its name."""
        self._identity = identity
        self._max_clients = max_clients
        self._until_idle = until_idle
        self._ids = itertools.count(FIRST_OWN_ID)
        self._vms = VmTable(self._ids.__next__, keep_ns)
        self._order = itertools.count()
        self.directory = Directory(identity, route, homes)
        self.refusals = Refusals()
        self._relay = Relay(wait, max_clients)
        self._panel = panel
        self._listeners: dict[int, socket.socket] = {}
        self._resting: list[int] = []
        self._rested_ns = _NEVER_NS
        self._clients: dict[int, Client] = {}
        #: Those whose handshake was not over when that was looked at last, by when they came.
        self._opening: dict[int, Client] = {}
        self._most_opening = max(FEW_OPENING, max_clients // 8)
        self._timers: list[_Timer] = []
        self._stopping = False
        self._watchdog = Watchdog(model_timeout_s)
        self._next_check_ns = _NEVER_NS
        self._panel_ns = _NEVER_NS
        self._loop: Loop = _LOOPS[engine](wait, self._schedule)

    # -- set-up -------------------------------------------------------------------------------

    def add_listener(self, sock: socket.socket) -> None:
        """Takes clients from a listening socket; the host owns it from now on."""
        self._listeners[sock.fileno()] = sock
        self._loop.watch(sock.fileno(), True)

    def add_client(self, sock: socket.socket, peer: str) -> None:
        """Serves a socket that is already connected; the host owns it from now on."""
        tune(sock)
        session = Session(
            self._identity,
            self._ids.__next__,
            peer,
            self._vms,
            self.directory,
            self.refusals,
            may_share=self._loop.shares_memory and sock.family == socket.AF_UNIX,
        )
        client = Client(sock, session, time.monotonic_ns())
        self._loop.add(client)
        self._clients[client.fd] = self._opening[client.fd] = client
        if self._next_check_ns == _NEVER_NS:
            self._next_check_ns = 0

    def stop(self) -> None:
        """Makes :meth:`run` return; may be called from a signal handler."""
        self._stopping = True
        self._watchdog.hurry()

    # -- the loop -----------------------------------------------------------------------------

    def run(self) -> None:
        """Serves until :meth:`stop`."""
        watching = self._watchdog.watching()
        with contextlib.closing(self._loop), self._woken_by_signals() as woken, watching:
            try:
                while not self._stopping and not (self._until_idle and not self._clients):
                    self._keep_time()
                    self._act(self._loop.run_once(self._due_ns()), woken)
            finally:
                self._shut_down()

    def _act(self, found: LoopEvent, woken: int) -> None:
        if found.what is LoopEventKind.READY:
            if found.fd in self._listeners:
                self._accept(self._listeners[found.fd])
            elif found.fd == woken:
                os.read(woken, 4096)
            else:
                self._hear_panel(found.fd)
        elif found.client is not None and found.what is LoopEventKind.GONE:
            handshake = found.client.session.handshake
            if handshake.forward_to is not None:
                self._forward(found.client)
            elif handshake.panel is not None:
                self._hand_over(found.client, handshake.panel)
            else:
                self._drop(found.client, found.why)
        elif found.client is not None:
            self._give_up(found.client)

    def _due_ns(self) -> int:
        first_ns = self._timers[0].due_ns if self._timers else _NEVER_NS
        expiry_ns = self._vms.next_expiry_ns() or _NEVER_NS
        return min(first_ns, self._next_check_ns, self._rested_ns, expiry_ns, self._panel_ns)

    # -- clients ------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, where = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("can't accept a client: %s", error.strerror)
            if error.errno in _EXHAUSTED:  # it would be told again at once, and for ever
                self._rest(listener)
            return
        peer = (
            f"tcp://{where[0]}:{where[1]}"
            if isinstance(where, tuple)
            else f"client-{sock.fileno()}"
        )
        self._make_room()
        if len(self._clients) >= self._max_clients:
            log.warning("%s: refused, %d clients are connected", peer, len(self._clients))
            with sock, contextlib.suppress(OSError):
                busy = Busy(f"all {self._max_clients} places of this server are taken")
                sock.setblocking(False)
                sock.send(Connection(Role.SERVER).send(busy))
            return
        self.add_client(sock, peer)
        log.info("%s: connected", peer)

    def _make_room(self) -> None:
        """Lets those go who came first, where too many have not said what they want."""
        for fd, client in list(self._opening.items()):
            if not client.session.connection.is_opening():
                del self._opening[fd]
            elif len(self._opening) >= self._most_opening:
                why = f"{len(self._opening)} connections have not done their handshake"
                self._part(client, client.session.end(ErrorCode.TIMEOUT, why), why)
            else:
                break

    def _part(self, client: Client, farewell: bytes, why: str) -> None:
        self._send(client, farewell)
        self._drop(client, why)

    def _rest(self, listener: socket.socket) -> None:
        self._loop.watch(listener.fileno(), False)
        self._resting.append(listener.fileno())
        self._rested_ns = time.monotonic_ns() + _REST_NS

    def _go_on_listening(self) -> None:
        for fd in self._resting:
            self._loop.watch(fd, True)
        self._resting.clear()
        self._rested_ns = _NEVER_NS

    def _send(self, client: Client, data: bytes) -> None:
        if not self._loop.send(client, data):
            self._drop(client, "it does not read what is sent")

    def _forward(self, client: Client) -> None:
        """A client wants another server, and is none of this one's any more."""
        forward_to = client.session.handshake.forward_to
        assert forward_to is not None
        self._clients.pop(client.fd)
        self._opening.pop(client.fd, None)
        self._loop.remove(client)
        self._relay.forward(client.sock, client.session.peer, *forward_to)

    def _hand_over(self, client: Client, wanted: Panel) -> None:
        """A client wants the control panel, and is none of this host's any more."""
        if self._panel is None:
            client.session.refuse(ErrorCode.STATE, "there is no control panel here")
            self._send(client, client.session.outbox.take_bytes())
            self._drop(client, "there is no control panel here")
            return
        self._clients.pop(client.fd)
        self._opening.pop(client.fd, None)
        self._loop.remove(client)
        why = "too many wait for the control panel; try again"
        try:
            if self._panel.fileno() is None:
                self.start_panel()
            if self._panel.hand_over(client.sock, client.session.peer, wanted):
                return
        except OSError as error:
            why = f"the control panel can't be had: {error.strerror}"
        log.error("%s: refused: %s", client.session.peer, why)
        with client.sock, contextlib.suppress(OSError):
            client.sock.send(Connection(Role.SERVER).send(Busy(why)))

    def start_panel(self) -> None:
        """Starts the control panel's process. Raises OSError."""
        assert self._panel is not None
        self._panel.start(Roster(self._clients))
        fd = self._panel.fileno()
        assert fd is not None
        self._loop.watch(fd, True)

    def _hear_panel(self, fd: int) -> None:
        if self._panel is not None and fd == self._panel.fileno():
            self._loop.watch(fd, False)
            if self._panel.hear():
                self._loop.watch(fd, True)
                self._panel_ns = 0

    def _go_on_with_panel(self, now_ns: int) -> None:
        """Answers the panel a little further; the clients' turns come in between."""
        self._panel_ns = _NEVER_NS
        if self._panel is not None:
            self._panel.go_on(self.directory, self.refusals)
            if self._panel.has_more:
                self._panel_ns = now_ns + _PIECE_NS

    def _drop(self, client: Client, why: str) -> None:
        """Closes a connection and forgets its session."""
        if self._clients.pop(client.fd, None) is None:
            return
        self._opening.pop(client.fd, None)
        log.info("%s: gone%s", client.session.peer, f" ({why})" if why else "")
        self._loop.remove(client)
        client.session.close()
        client.sock.close()
        client.timer_ns = None

    def _give_up(self, client: Client) -> None:
        """A defect in this server met this client: it ends, the others go on."""
        with contextlib.suppress(Exception):
            farewell = client.session.end(ErrorCode.INTERNAL, "internal error of the server")
            self._loop.send(client, farewell)
        self._drop(client, "internal error")

    # -- time ---------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        now_ns = time.monotonic_ns()
        if self._timers and self._timers[0].due_ns <= now_ns:
            self._run_timers(now_ns)
        if now_ns >= self._next_check_ns:
            self._look_after_clients(now_ns)
        if now_ns >= self._panel_ns:
            self._go_on_with_panel(now_ns)
        if now_ns >= self._rested_ns:
            self._go_on_listening()
        for vm_id in self._vms.expire(now_ns):
            log.warning("VM %d never came for the devices that it left behind; dropped", vm_id)

    def _schedule(self, client: Client, not_before_ns: int = 0) -> int:
        """Notes a client's next deadline, unless an earlier look at it is planned already."""
        due_ns = client.session.next_deadline_ns()
        if due_ns is not None:
            due_ns = max(due_ns, not_before_ns)
        if due_ns is not None and (client.timer_ns is None or due_ns < client.timer_ns):
            heapq.heappush(self._timers, _Timer(due_ns, next(self._order), client))
            client.timer_ns = due_ns
        return self._due_ns()

    def _run_timers(self, now_ns: int) -> None:
        """Has devices do what is due, as far as it fits into a turn; the rest in the next look."""
        until_ns = now_ns + _TIMERS_NS
        while self._timers and self._timers[0].due_ns <= now_ns and time.monotonic_ns() < until_ns:
            timer = heapq.heappop(self._timers)
            client = timer.client
            if client.timer_ns != timer.due_ns or client.fd not in self._clients:
                continue  # overtaken by an earlier one
            client.timer_ns = None
            due_ns = client.session.next_deadline_ns()
            try:
                if due_ns is not None and due_ns <= now_ns:
                    self._loop.begin_turn()
                    self._send(client, client.session.advance(now_ns))
            except BaseException:
                log.exception("%s: internal error", client.session.peer)
                self._give_up(client)
            if client.fd in self._clients:  # what is due already has its place behind the others'
                self._schedule(client, now_ns + 1)

    def _look_after_clients(self, now_ns: int) -> None:
        """Asks silent clients for a sign of life, and gives up those that show none."""
        identity = self._identity
        patience_ns = identity.deadline_ns - identity.heartbeat_ns
        self._next_check_ns = now_ns + min(identity.heartbeat_ns, patience_ns) // 2
        if not self._clients:
            self._next_check_ns = _NEVER_NS
        for client in list(self._clients.values()):
            heard_ns = self._loop.heard_ns(client)
            asked = client.asked_ns > heard_ns
            if asked and now_ns - client.asked_ns >= patience_ns:
                why = f"silent for {(now_ns - heard_ns) / 1e9:.1f} s"
                self._part(client, client.session.end(ErrorCode.TIMEOUT, why), why)
            elif self._is_late(client, now_ns):
                why = f"its handshake took more than {identity.deadline_ns / 1e9:g} s"
                self._part(client, client.session.end(ErrorCode.TIMEOUT, why), why)
            elif not asked and now_ns - heard_ns >= identity.heartbeat_ns:
                client.asked_ns = now_ns
                self._send(client, client.session.ping())

    def _is_late(self, client: Client, now_ns: int) -> bool:
        """Whether a handshake takes too long, however lively it is."""
        age_ns = now_ns - client.since_ns
        return age_ns >= self._identity.deadline_ns and client.session.connection.is_opening()

    # -- the end ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[int]:
        """Lets a signal end the loop's wait, so that its handler's stop() is seen."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.watch(reader, True)
        try:
            before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        except ValueError:  # not in the main thread: no signals come here
            before = None
        try:
            yield reader
        finally:
            if before is not None:
                signal.set_wakeup_fd(before)
            os.close(reader)
            os.close(writer)

    def _shut_down(self) -> None:
        for client in list(self._clients.values()):
            farewell = client.session.end(ErrorCode.SHUTDOWN, "the server is being shut down")
            self._loop.send(client, farewell)
            self._drop(client, "shutting down")
        for listener in self._listeners.values():
            stop_listening(listener)
        self._relay.close()
        if self._panel is not None:
            self._panel.close()
