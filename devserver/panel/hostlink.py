"""The panel's end of the stream to its device host: connections come, and questions go."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable
from typing import Any

from devserver.panel.channel import Channel
from devserver.rpc import RpcError

#: The host is given up for the question after this time; its answer may still come.
ANSWER_S = 10.0


class HostLink:
    """Asks one thing at a time; whoever asks meanwhile is answered by the next answer.

    The host tells what has changed since it was asked last, in pieces, so that what is known here
    is what the host knew at its last answer, however long that took.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_connection: Callable[[socket.socket, dict[str, Any]], None],
        answer_s: float = ANSWER_S,
    ) -> None:
        """``on_connection`` gets each connection that is handed over, and what it is."""
        self._channel = Channel(sock)
        self._on_connection = on_connection
        self._answer_s = answer_s
        self._numbers = itertools.count(1)
        self._guests: dict[int, dict[str, Any]] = {}
        self._asked: asyncio.Future[dict[str, Any]] | None = None
        self._next: asyncio.Future[dict[str, Any]] | None = None
        #: Set when the host is gone.
        self.ended = asyncio.Event()

    def begin(self) -> None:
        """Listens to the host."""
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._read)

    def close(self) -> None:
        """Listens no more; whoever waits is told."""
        if not self.ended.is_set():
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            self.ended.set()
        for future in (self._asked, self._next):
            if future is not None and not future.done():
                future.set_exception(RpcError("the server is going down"))
                future.exception()  # there may be nobody who waits

    async def ask(self) -> dict[str, Any]:
        """The servers that the host knows, what it has refused, and the VMs that are attached.

        Raises :class:`RpcError`.
        """
        if self.ended.is_set():
            raise RpcError("the server is going down")
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waited = self._next
        self._go_on()
        try:
            async with asyncio.timeout(self._answer_s):
                return await asyncio.shield(waited)
        except TimeoutError:
            raise RpcError(
                f"the server's device host did not answer within {self._answer_s:g} s"
            ) from None

    def _go_on(self) -> None:
        if self._asked is None and self._next is not None:
            self._asked, self._next = self._next, None
            try:
                self._channel.put({"ask": next(self._numbers)})
            except OSError:
                self.close()

    def _read(self) -> None:
        try:
            for message, sock in self._channel.take():
                if sock is not None:
                    self._on_connection(sock, message)
                else:
                    self._hear(message)
        except (OSError, EOFError):
            self.close()

    def _hear(self, piece: dict[str, Any]) -> None:
        """A piece of an answer; the last one has the rest."""
        for number in piece["gone"]:
            self._guests.pop(number, None)
        for guest in piece["guests"]:
            self._guests[guest.pop("number")] = guest
        if "servers" not in piece or self._asked is None:
            return
        asked, self._asked = self._asked, None
        rest = {key: piece[key] for key in ("servers", "refused")}
        if not asked.done():
            asked.set_result({**rest, "guests": list(self._guests.values())})
        self._go_on()
