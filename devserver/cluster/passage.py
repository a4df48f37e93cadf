"""Connections that are another server's: handed on there, in C (native/src/serve/relay.h)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading

from devserver._native import ffi, lib
from devserver.cluster.directory import IoServer
from devserver.protocol.address import TcpAddress, parse_address
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import Error
from devserver.waiting import SPIN_NS

log = logging.getLogger("devserver.host")

_CONNECT_S = 5.0
_MODES = {
    "adaptive": lib.PATIENCE_ADAPTIVE,
    "spin": lib.PATIENCE_SPIN,
    "block": lib.PATIENCE_BLOCK,
}


class Passage:
    """Hands connections on. Threads: one that does it, and one for each server being reached."""

    def __init__(self, wait: str) -> None:
        self._mode = _MODES[wait]
        self._relay = ffi.NULL
        self._thread: threading.Thread | None = None
        self._reaching: list[threading.Thread] = []

    def hand_on(self, sock: socket.socket, peer: str, server: IoServer, said: bytes) -> None:
        """Connects a client to another server, which first gets what it has ``said``.

        The socket is the passage's from now on. Where the server can't be reached, the client is
        told so.
        """
        if self._thread is None:
            self._start()
        self._reaching = [thread for thread in self._reaching if thread.is_alive()]
        thread = threading.Thread(
            target=self._reach, args=(sock, peer, server, said), name="reach", daemon=True
        )
        self._reaching.append(thread)
        thread.start()

    def close(self) -> None:
        """Closes every connection that is handed on."""
        for thread in self._reaching:
            thread.join()
        if self._thread is not None:
            lib.relay_stop(self._relay)
            self._thread.join()
            self._thread = None
            lib.relay_free(self._relay)
            self._relay = ffi.NULL

    def _start(self) -> None:
        self._relay = lib.relay_new(self._mode, SPIN_NS)
        if self._relay == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self._thread = threading.Thread(
            target=lib.relay_run, args=(self._relay,), name="relay", daemon=True
        )
        self._thread.start()

    def _reach(self, sock: socket.socket, peer: str, server: IoServer, said: bytes) -> None:
        try:
            there = connect(server.address)
            there.sendall(said)
            there.setblocking(False)
        except OSError as error:
            why = f"I/O server '{server.name}' at {server.address} can't be reached: "
            why += error.strerror or "no answer"
            log.warning("%s: %s", peer, why)
            with sock, contextlib.suppress(OSError):
                sock.send(Connection(Role.SERVER).send(Error(ErrorCode.SHUTDOWN, why)))
            return
        log.info("%s: handed on to server '%s'", peer, server.name)
        if lib.relay_add(self._relay, sock.detach(), there.detach()) < 0:
            log.error("%s: can't be handed on: %s", peer, os.strerror(ffi.errno))


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
