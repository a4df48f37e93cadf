"""The panel's process: takes connections from the device host, and serves agents and operators."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from typing import Any

from devserver.deadline import end_soon
from devserver.panel.agents import Agent
from devserver.panel.hostlink import HostLink
from devserver.panel.operator_api import Operator
from devserver.panel.state import PanelState, Visitor, checked
from devserver.rpc import SILENCE_S, Peer, RpcError

log = logging.getLogger("devserver.panel")

#: So long the end waits for a registry that others hold.
_PARTING_S = 1.0
#: Agents and operators that may be connected at once.
MAX_VISITORS = 1024


class PanelServer:
    """Serves until the device host is gone."""

    def __init__(
        self, host: socket.socket, registry: str, name: str, address: str, only_registered: bool
    ) -> None:
        """``host`` is the panel's end of the connection to its device host; ``name`` and
        ``address`` are those of the server, ``registry`` the URL of its database."""
        self._host = HostLink(host, self._take_in)
        self._state = PanelState(self._host.ask, registry, name, address, only_registered)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Takes connections until the device host closes its end, or SIGTERM comes."""
        self._host.begin()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        try:
            await self._state.records.open()
        except RpcError as error:  # who comes is told, and it is tried again for each
            log.error("%s", error)
        try:
            await self._host.ended.wait()
        finally:
            self._host.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:  # who was here takes leave, and the registry is told
                await asyncio.wait(self._tasks, timeout=_PARTING_S)
            await self._state.records.close()

    def _end(self) -> None:
        end_soon()
        self._host.close()

    def _take_in(self, sock: socket.socket, about: dict[str, Any]) -> None:
        """The device host hands over a connection."""
        task = asyncio.get_running_loop().create_task(self._serve(sock, about))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
            if len(self._tasks) > MAX_VISITORS:
                raise RpcError(f"all {MAX_VISITORS} places at the control panel are taken")
            await self._state.records.open()
            visitor = self._visitor(role, about["name"])
        except RpcError as error:
            log.warning("%s: %s", peer_name, error)
            with contextlib.suppress(OSError, RpcError):
                await Peer(reader, writer, {}).note("sorry", why=str(error))
            writer.close()
            return
        # An operator may be asleep (Ctrl-Z, Ctrl-S): what waits for it is bounded.
        silence_s = SILENCE_S if role == "agent" else None
        peer = Peer(reader, writer, visitor.handlers(), silence_s=silence_s)
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
            return Agent(self._state, checked("a client", name))
        if role == "operator":
            return Operator(self._state)
        raise RpcError(f"there is no role '{role}'")
