"""An I/O server's connection to its owner: it joins, stays in touch, and joins again."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from devserver.cluster.relay import connect
from devserver.protocol import limits
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import RemoteProtocolError
from devserver.protocol.messages import Busy, Error, Join, Message, Ping, Welcome

log = logging.getLogger("devserver.host")

_ANSWER_S = 10.0
_RETRY_S = 0.5


class JoinError(OSError):
    """The owner can't be reached or refuses; the message says why and what to do."""


class Membership:
    """Joined to an owner, for as long as this lives: a thread keeps it so."""

    def __init__(self, owner: str, name: str, address: str, on_lost: Callable[[], None] | None):
        """Joins; raises :class:`JoinError`. ``on_lost`` is called instead of joining again when the
        connection is lost."""
        self.server_id = 0
        self._owner = owner
        self._name = name
        self._address = address
        self._on_lost = on_lost
        self._stop_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._sock, self._connection, self._welcome = self._join()
        except BaseException:
            os.close(self._stop_fd)
            raise
        self.server_id = self._welcome.server_id
        self._thread = threading.Thread(target=self._stay, name="owner", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leaves the owner."""
        os.eventfd_write(self._stop_fd, 1)
        self._thread.join()
        os.close(self._stop_fd)

    def _join(self) -> tuple[socket.socket, Connection, Welcome]:
        try:
            sock = connect(self._owner)
        except OSError as error:
            raise JoinError(
                f"can't reach the owner at {self._owner}: {error.strerror or 'no answer'}; "
                f"is 'devserver serve --listen {self._owner}' running there?"
            ) from None
        connection = Connection(Role.CLIENT)
        try:
            sock.settimeout(_ANSWER_S)
            join = Join(limits.PROTOCOL_VERSION, self._name, self._address, self.server_id)
            sock.sendall(connection.send(join))
            while True:
                data = sock.recv(65536)
                if not data:
                    raise JoinError(f"the owner at {self._owner} closed the connection")
                for message in connection.receive(data):
                    if isinstance(message, Welcome):
                        return sock, connection, message
                    if isinstance(message, Error | Busy):
                        raise JoinError(f"the owner at {self._owner} refuses: {message.message}")
        except (TimeoutError, RemoteProtocolError) as error:
            sock.close()
            raise JoinError(f"the owner at {self._owner} is none: {error}") from None
        except JoinError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            raise JoinError(
                f"the connection to the owner at {self._owner} was lost: {error.strerror or error}"
            ) from None

    # -- the thread ---------------------------------------------------------------------------

    def _stay(self) -> None:
        while True:
            stopped = self._serve()
            self._sock.close()
            if stopped:
                return
            if self._on_lost is not None:
                log.warning("lost the owner at %s", self._owner)
                self._on_lost()
                return
            log.warning("lost the owner at %s; joining again", self._owner)
            if not self._join_again():
                return

    def _join_again(self) -> bool:
        while not self._wait([], _RETRY_S):
            try:
                self._sock, self._connection, self._welcome = self._join()
            except OSError as error:
                log.debug("%s", error)
                continue
            log.info("joined the owner at %s again", self._owner)
            return True
        return False

    def _serve(self) -> bool:
        """Keeps the connection alive; whether it is to be closed (else it is lost)."""
        heartbeat_s = self._welcome.heartbeat_ns / 1e9
        deadline_s = self._welcome.deadline_ns / 1e9
        heard_s = asked_s = time.monotonic()
        while True:
            if self._wait([self._sock], heartbeat_s):
                return True
            now_s = time.monotonic()
            try:
                data = self._sock.recv(65536, socket.MSG_DONTWAIT)
                if not data:
                    return False
                heard_s = now_s
                for message in self._connection.receive(data):
                    self._answer(message)
            except BlockingIOError:
                if now_s - heard_s >= deadline_s:
                    return False
                if now_s - asked_s >= heartbeat_s:
                    asked_s = now_s
                    self._sock.sendall(self._connection.send(Ping(0)))
            except (OSError, RemoteProtocolError):
                return False

    def _answer(self, message: Message) -> None:
        if isinstance(message, Ping):
            self._sock.sendall(self._connection.send(self._connection.pong(message.token)))
        elif isinstance(message, Error):
            log.warning("the owner at %s: %s", self._owner, message.message)

    def _wait(self, socks: list[socket.socket], timeout_s: float) -> bool:
        """Waits for one of the sockets; whether it is time to leave."""
        watched = [self._stop_fd, *(sock.fileno() for sock in socks)]
        ready, _, _ = select.select(watched, [], [], timeout_s)
        return self._stop_fd in ready
