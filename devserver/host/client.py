"""A connected client, and what the data loops have in common."""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple, Protocol

from devserver.session.session import Session

#: Bytes that may wait for a client that does not read; then it is given up.
MAX_OUT_BYTES = 8 << 20
#: Above this, nothing more is read from a client until it has taken what waits for it.
HIGH_OUT_BYTES = 1 << 20

#: Why it is.
NOT_READ = f"more than {MAX_OUT_BYTES} bytes wait for it to read"


class Client:
    """A connected client: its socket, its session, when it came, was heard and asked."""

    def __init__(self, sock: socket.socket, session: Session, now_ns: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.session = session
        self.heard_ns = self.since_ns = now_ns
        self.asked_ns = 0
        #: When the host is to look at its deadlines, by CLOCK_MONOTONIC.
        self.timer_ns: int | None = None


class LoopEventKind(Enum):
    """Why a data loop came back to its host."""

    TIME = auto()  # the time it was given is over
    SIGNAL = auto()
    READY = auto()  # a watched descriptor
    GONE = auto()  # a client closed its connection, broke the rules, or said goodbye
    BROKEN = auto()  # a defect of the server, met by a client; the exception is logged


class LoopEvent(NamedTuple):
    """Why a data loop came back, and about whom."""

    what: LoopEventKind
    fd: int = -1
    client: Client | None = None
    why: str = ""


#: Called when a client's next deadline may have changed; gives the time of the first of all.
OnDeadline = Callable[[Client], int]


class Loop(Protocol):
    """Moves bytes between sockets and sessions, and waits.

    What a client does can be heard by the devices of others
    (:mod:`devserver.machine.message_bus`). A loop sends on what they say to it, and notes their
    deadlines, before it serves anybody else.
    """

    #: Whether it gives the clients of Unix sockets memory for their bytes.
    shares_memory: bool

    def watch(self, fd: int, on: bool) -> None:
        """Has READY returned while a descriptor is readable, or not any more."""

    def add(self, client: Client) -> None:
        """Serves a client from now on. Raises OSError."""

    def remove(self, client: Client) -> None:
        """Serves it no more; its socket is still open."""

    def send(self, client: Client, data: bytes) -> bool:
        """Sends frames outside of a turn, and what others say to them; False if too much waits for
        the client already."""

    def heard_ns(self, client: Client) -> int:
        """When the client was last heard, by CLOCK_MONOTONIC."""

    def begin_turn(self) -> None:
        """Begins a turn of a client whose devices are looked after outside of :meth:`run_once`."""

    def run_once(self, due_ns: int) -> LoopEvent:
        """Serves clients until something else is to be done, or until ``due_ns``."""

    def close(self) -> None:
        """Frees what the loop holds."""
