"""The panel's process: takes connections from the device host, and serves agents and operators."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
from typing import Any

import msgpack

from devserver.deadline import end_soon
from devserver.panel.agents import Agent
from devserver.panel.desk import Desk, Visitor, checked
from devserver.panel.operators import Operator
from devserver.rpc import Peer, RpcError

log = logging.getLogger("devserver.panel")

_MESSAGE_BYTES = 64 * 1024
#: So long the end waits for a registry that others hold.
_PARTING_S = 1.0


class PanelServer:
    """Serves until the device host is gone."""

    def __init__(
        self, host: socket.socket, registry: str, name: str, address: str, only_registered: bool
    ) -> None:
        """``host`` is the panel's end of the connection to its device host; ``name`` and
        ``address`` are those of the server, ``registry`` the URL of its database."""
        self._host = host
        self._desk = Desk(self._ask_host, registry, name, address, only_registered)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._guests: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Takes connections until the device host closes its end, or SIGTERM comes."""
        self._host.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._host, self._read)
        loop.add_signal_handler(signal.SIGTERM, self._end)
        try:
            await self._desk.records.open()
        except RpcError as error:  # who comes is told, and it is tried again for each
            log.error("%s", error)
        try:
            await self._ended.wait()
        finally:
            loop.remove_reader(self._host)
            for task in self._tasks:
                task.cancel()
            if self._tasks:  # who was here takes leave, and the registry is told
                await asyncio.wait(self._tasks, timeout=_PARTING_S)
            await self._desk.records.close()

    def _end(self) -> None:
        end_soon()
        self._ended.set()

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._host, _MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended.set()
            for future in self._asked.values():
                future.cancel()
            return
        message = msgpack.unpackb(data)
        if descriptors:
            sock = socket.socket(fileno=descriptors[0])
            task = asyncio.get_running_loop().create_task(self._serve(sock, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif "part" in message:
            self._guests += message["guests"]
        elif (asked := self._asked.pop(message["answer"], None)) is not None:
            guests, self._guests = self._guests, []
            asked.set_result({**message, "guests": guests})

    async def _ask_host(self) -> dict[str, Any]:
        """The servers that the device host knows, and what it has refused."""
        if self._ended.is_set():
            raise RpcError("the server is going down")
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._host.send(msgpack.packb({"ask": number}))
        answer: dict[str, Any] = await future
        return answer

    async def _serve(self, sock: socket.socket, about: dict[str, Any]) -> None:
        sock.setblocking(False)
        role, peer_name = about["role"], about["peer"]
        try:
            reader, writer = await asyncio.open_connection(sock=sock)
        except OSError as error:  # it is gone already
            log.info("%s: %s '%s' went away: %s", peer_name, role, about["name"], error.strerror)
            sock.close()
            return
        try:
            await self._desk.records.open()
            visitor = self._visitor(role, about["name"])
        except RpcError as error:
            log.warning("%s: %s", peer_name, error)
            with contextlib.suppress(OSError, RpcError):
                await Peer(reader, writer, {}).note("sorry", why=str(error))
            writer.close()
            return
        peer = Peer(reader, writer, visitor.handlers())
        visitor.peer = peer
        log.info("%s: %s '%s' is here", peer_name, role, about["name"])
        try:
            with contextlib.suppress(OSError, RpcError):  # then reading ends at once
                await peer.note("welcome")
            await peer.serve()
        finally:
            with contextlib.suppress(OSError, RpcError):
                await visitor.gone()
            log.info("%s: %s '%s' is gone", peer_name, role, about["name"])

    def _visitor(self, role: str, name: str) -> Visitor:
        """Somebody new; raises :class:`RpcError` for a role or name that is none."""
        if role == "agent":
            return Agent(self._desk, checked("a client", name))
        if role == "operator":
            return Operator(self._desk)
        raise RpcError(f"there is no role '{role}'")
