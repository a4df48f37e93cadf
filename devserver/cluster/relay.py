"""Connections that are another server's: handed on there, in C (native/src/serve/relay.h)."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from devserver._native import ffi, lib
from devserver.cluster.directory import IoServer
from devserver.protocol.address import TcpAddress, parse_address
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import Error
from devserver.waiting import SPIN_NS

log = logging.getLogger("devserver.host")

_CONNECT_S = 5.0
#: Threads that reach servers, and how many of them one server may take up.
_MOST_THREADS = 16
_MOST_EACH = 4
#: Clients that may wait for that, and how long.
_MOST_WAITING = 256
_WAIT_S = 10.0
_MODES = {
    "adaptive": lib.SPIN_WAIT_ADAPTIVE,
    "spin": lib.SPIN_WAIT_SPIN,
    "block": lib.SPIN_WAIT_BLOCK,
}


class _Wanted(NamedTuple):
    """A client that wants another server, and what that is to be told first."""

    sock: socket.socket
    peer: str
    server: IoServer
    said: bytes
    since_s: float


class Relay:
    """Hands connections on: one thread does it, a few reach the servers.

    A server that does not answer takes up :data:`_MOST_EACH` of them at most.
    """

    def __init__(self, wait: str, most: int) -> None:
        """``most``: connections that are handed on at a time."""
        self._mode = _MODES[wait]
        self._most = most
        self._relay = ffi.NULL
        self._thread: threading.Thread | None = None
        self._lock = threading.Condition()
        self._closing = False
        self._waiting: deque[_Wanted] = deque()
        self._reached: Counter[int] = Counter()
        self._threads: list[threading.Thread] = []
        self._idle = 0

    def forward(self, sock: socket.socket, peer: str, server: IoServer, said: bytes) -> None:
        """Connects a client to another server, which first gets what it has ``said``.

        The socket is the relay's from now on. Where the server can't be reached, or too many
        clients are on their way to it, the client is told so.
        """
        wanted = _Wanted(sock, peer, server, said, time.monotonic())
        with self._lock:
            try:
                self._start()
                if len(self._waiting) >= _MOST_WAITING:
                    raise OSError(errno.EBUSY, f"{_MOST_WAITING} clients wait for servers already")
                if lib.relay_count(self._relay) >= self._most:
                    raise OSError(errno.EBUSY, f"{self._most} connections are handed on already")
            except (OSError, RuntimeError) as error:  # no descriptors, or no threads
                _refuse(wanted, getattr(error, "strerror", None) or str(error))
                return
            self._waiting.append(wanted)
            self._lock.notify()

    def close(self) -> None:
        """Closes every connection that is handed on."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
            while self._waiting:
                self._waiting.popleft().sock.close()
        if self._thread is not None:
            lib.relay_stop(self._relay)
            self._thread.join()
            self._thread = None
            lib.relay_free(self._relay)
            self._relay = ffi.NULL

    def _start(self) -> None:
        """Has the threads that are needed now; raises OSError, RuntimeError where they can't be."""
        if self._relay == ffi.NULL:
            self._relay = lib.relay_new(self._mode, SPIN_NS)
        if self._relay == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        if self._thread is None:
            self._thread = _started("relay", lambda: lib.relay_run(self._relay))
        if self._idle <= len(self._waiting) and len(self._threads) < _MOST_THREADS:
            try:
                self._threads.append(_started("reach", self._reach_servers))
            except RuntimeError:
                if not self._threads:
                    raise

    # -- the threads that reach servers -------------------------------------------------------

    def _reach_servers(self) -> None:
        while (wanted := self._next()) is not None:
            try:
                if time.monotonic() - wanted.since_s > _WAIT_S:
                    raise OSError(errno.ETIMEDOUT, "it has not answered others either")
                self._reach(wanted)
            except OSError as error:
                _refuse(wanted, error.strerror or "no answer")
            except Exception:
                log.exception("%s: internal error", wanted.peer)
                wanted.sock.close()
            finally:
                with self._lock:
                    self._reached[wanted.server.server_id] -= 1
                    self._lock.notify()

    def _next(self) -> _Wanted | None:
        """The next one to be served; None: there will be no more."""
        with self._lock:
            while not self._closing:
                for wanted in self._waiting:
                    if self._reached[wanted.server.server_id] < _MOST_EACH:
                        self._waiting.remove(wanted)
                        self._reached[wanted.server.server_id] += 1
                        return wanted
                self._idle += 1
                self._lock.wait()
                self._idle -= 1
        return None

    def _reach(self, wanted: _Wanted) -> None:
        there = connect(wanted.server.address)
        try:
            there.sendall(wanted.said)
            there.setblocking(False)
        except OSError:
            there.close()
            raise
        log.info("%s: handed on to server '%s'", wanted.peer, wanted.server.name)
        with self._lock:
            if self._closing:
                there.close()
                wanted.sock.close()
            elif lib.relay_add(self._relay, wanted.sock.detach(), there.detach()) < 0:
                log.error("%s: can't be handed on: %s", wanted.peer, os.strerror(ffi.errno))


def _started(name: str, target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def _refuse(wanted: _Wanted, reason: str) -> None:
    """Tells a client that it can't have the server that it wants, and lets it go."""
    server = wanted.server
    why = f"I/O server '{server.name}' at {server.address} can't be reached: {reason}"
    log.warning("%s: %s", wanted.peer, why)
    with wanted.sock, contextlib.suppress(OSError):
        wanted.sock.send(Connection(Role.SERVER).send(Error(ErrorCode.SHUTDOWN, why)))


def connect(address: str) -> socket.socket:
    """A socket connected to a server; raises OSError."""
    where = parse_address(address)
    if isinstance(where, TcpAddress):
        sock = socket.create_connection((where.host, where.port), _CONNECT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_S)
        sock.connect(where.path)
    except OSError:
        sock.close()
        raise
    return sock
