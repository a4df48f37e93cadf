"""What the panel has: the fleet, its records, who is connected, and who looks at which console."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any, Protocol

from devserver.panel.doubts import Doubts
from devserver.panel.elsewhere import as_known, exit_status, where_to_ask
from devserver.panel.fleet import ENDED, PLACED, Fleet, Vm, VmState
from devserver.panel.migration import Migration
from devserver.panel.records import AskHost, Records
from devserver.panel.registry.registry import Registry, Row
from devserver.protocol.names import BadName, check_name
from devserver.rpc import Handler, Peer, RpcError

log = logging.getLogger("devserver.panel")

#: Whoever waits for a VM looks at least so often.
_LOOK_S = 1.0
#: A client comes back this soon after it went, and after a panel has begun, if it does.
_RETURN_S, _RETURN_TO_NEW_S = 3.0, 10.0
#: The state of a VM that its client runs by itself.
ATTACHED = "attached"
#: An agent whose name somebody else comes with must show within this time that it is there.
_SIGN_OF_LIFE_S = 3.0


_NOT_READ = "too much of what was printed waits to be read"


class Visitor(Protocol):
    """Somebody connected to the panel."""

    peer: Peer | None

    def handlers(self) -> dict[str, Handler]:
        """What it may ask for."""

    async def gone(self) -> None:
        """Its connection has ended."""


class PanelState:
    """What agents and operators meet at."""

    def __init__(
        self, ask_host: AskHost, registry: str, server: str, address: str, only_registered: bool
    ) -> None:
        """``registry`` is a database's URL; ``only_registered``: clients must be known to it."""
        self.fleet = Fleet()
        self.records = Records(registry, server, address, self.fleet, ask_host)
        self.only_registered = only_registered
        self.ask_host = ask_host
        self.agents: dict[str, Visitor] = {}
        #: Held while an agent is taken in or let go: in the fleet and in the registry at once.
        self.registering = asyncio.Lock()
        #: VMs on their way to another client.
        self.migrations: dict[int, Migration] = {}
        #: Who looks at a VM's console, by VM, and how many of its bytes they have been shown.
        self.viewers: dict[int, dict[Visitor, int]] = {}
        #: Who may type on it.
        self.writers: dict[int, Visitor] = {}
        #: VMs whose clients wait for others.
        self.doubts = Doubts(self.fleet, self.peer_of)
        #: Set, and replaced, when something has been done that may have changed a VM.
        self._news = asyncio.Event()
        self._begun: set[asyncio.Future[Any]] = set()
        #: Until when a client is waited for, by its name, if it was here and went.
        self._returns_s: dict[str, float] = {}
        self._all_return_s = time.monotonic() + _RETURN_TO_NEW_S

    def whole(self, handler: Handler) -> Handler:
        """Has what was begun come to its end though whoever asked for it goes away."""

        async def do(**arguments: Any) -> Any:
            task = asyncio.ensure_future(self._recorded(handler, arguments))
            self._begun.add(task)
            task.add_done_callback(self._begun.discard)
            return await asyncio.shield(task)

        return do

    async def _recorded(self, handler: Handler, arguments: dict[str, Any]) -> Any:
        try:
            answer = await handler(**arguments)
            await self.records.save()  # before it is answered
            return answer
        finally:
            self.records.touch()
            self._news.set()
            self._news = asyncio.Event()

    async def await_end(self, vm: Vm) -> None:
        """Waits until a VM does not run any more."""
        while vm.state in PLACED:
            await self._await_news()

    def went(self, client: str) -> None:
        """A client's connection is lost; it may come back."""
        self._returns_s[client] = time.monotonic() + _RETURN_S

    async def await_return(self, vm: Vm) -> None:
        """Waits for the client of a lost VM: what it comes back with is the truth.

        Nobody else may have the VM before that, or it would be ended there though it runs.
        """
        until_s = self._returns_s.get(vm.client, self._all_return_s)
        while (
            vm.state is VmState.LOST
            and not self.fleet.is_online(vm.client)
            and time.monotonic() < until_s
        ):
            await self._await_news()

    async def _await_news(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._news.wait()

    # -- VMs ----------------------------------------------------------------------------------

    def agent_of(self, vm: Vm) -> Peer:
        """The agent that has a VM. Raises :class:`RpcError`."""
        peer = self.peer_of(vm.client)
        if peer is None:
            raise RpcError(f"client '{vm.client}', which has VM '{vm.name}', is not connected")
        return peer

    def peer_of(self, client: str) -> Peer | None:
        """The agent of a client, if it is connected."""
        agent = self.agents.get(client)
        return None if agent is None else agent.peer

    async def dismiss_silent(self, name: str) -> None:
        """Ends the connection of the agent of this name, if there is one that does not answer.

        A host that has lost its power or its network does not say goodbye.
        """
        holder = self.agents.get(name)
        if holder is None or holder.peer is None:
            return
        if not await holder.peer.is_there(_SIGN_OF_LIFE_S):
            log.warning("client '%s' does not answer, and another of its name is here", name)
            holder.peer.close()
            await holder.gone()

    async def vms(self) -> list[Row]:
        """All VMs of all servers that share the registry; this server's as they are now."""
        rows = await self.records.do(Registry.vms)
        servers = await self.records.do(Registry.servers)
        ours = {row["vm_id"] for row in rows if row["server"] == self.records.server}
        shown = [
            {**self.fleet.vms[row["vm_id"]].shown(), "server": row["server"]}
            if row["vm_id"] in ours and row["vm_id"] in self.fleet.vms
            else as_known(row, servers)
            for row in rows
        ]
        for row in shown:
            row.pop("machine", None)
            row.pop("image_name", None)
            row["exit_status"] = exit_status(row)
        return [*shown, *(_as_vm(guest) for guest in await self.records.guests())]

    async def find(self, what: str) -> Vm:
        """A VM of this server. Raises :class:`RpcError`, naming the server if it is another's."""
        try:
            return self.fleet.find(what)
        except RpcError:
            row = await self._elsewhere(what)
            if row is None:
                await self._check_guests(what)
                raise
        hint = where_to_ask(row, await self.records.do(Registry.servers))
        raise RpcError(f"VM '{row['name']}' is managed by server '{row['server']}'; {hint}")

    async def claim(self, what: str) -> Vm:
        """A VM that no client has, of whichever server; it is this one's from now on."""
        try:
            vm = self.fleet.find(what)
        except RpcError:
            row = await self._elsewhere(what)
            if row is None:
                raise
            if row["state"] in PLACED:
                hint = where_to_ask(row, await self.records.do(Registry.servers))
                has = f"server '{row['server']}' has it"
                raise RpcError(f"VM '{row['name']}' is not free: {has}; {hint}") from None
            await self.records.do(Registry.claim, row["vm_id"])
            return self.fleet.add(row)
        await self.await_return(vm)
        if vm.state in (*ENDED, VmState.SUSPENDED, VmState.DEFINED):
            await self.records.do(Registry.claim, vm.vm_id)
        return vm

    async def _elsewhere(self, what: str) -> Row | None:
        for row in await self.records.do(Registry.vms):
            if what in (row["name"], str(row["vm_id"])) and row["server"] != self.records.server:
                return row
        return None

    async def _check_guests(self, what: str) -> None:
        for guest in await self.records.guests():
            if what in (guest["name"], str(guest["vm_id"])):
                raise RpcError(
                    f"VM '{guest['name']}' is run by client '{guest['client']}' itself; only VMs "
                    f"that an agent runs are managed from here"
                )

    # -- consoles -----------------------------------------------------------------------------

    def show(self, vm_id: int, data: bytes, printed: int) -> None:
        """Shows what a VM's console has printed, ``printed`` bytes in all with these.

        Nobody waits for one who looks and does not read: it is shown no more.
        """
        viewers = self.viewers.get(vm_id, {})
        for viewer, shown in list(viewers.items()):
            begin = printed - len(data)
            new = data[max(0, shown - begin) :]
            if begin > shown:
                new = (
                    b"\r\n[%d bytes were printed too fast to be shown]\r\n" % (begin - shown) + new
                )
            viewers[viewer] = max(shown, printed)
            peer = viewer.peer
            if new and peer is not None and not peer.post("output", vm_id=vm_id, data=new):
                log.warning(
                    "VM %d: one who looks at its console does not read; shown no more", vm_id
                )
                del viewers[viewer]
                if self.writers.get(vm_id) is viewer:
                    del self.writers[vm_id]
                peer.post_last("console_closed", vm_id=vm_id, why=_NOT_READ)

    async def close_console(self, vm_id: int, why: str) -> None:
        """Tells everybody who looks at a console that it has ended."""
        for viewer in self.viewers.pop(vm_id, {}):
            if viewer.peer is not None:
                viewer.peer.post_last("console_closed", vm_id=vm_id, why=why)
        self.writers.pop(vm_id, None)


def checked(what: str, name: str) -> str:
    """``name``, if a client or VM (``what``) may have it. Raises :class:`RpcError`."""
    try:
        return check_name(what, name)
    except BadName as error:
        raise RpcError(str(error)) from None


def _as_vm(guest: Row) -> Row:
    """A VM that its client runs by itself, among those of the fleet."""
    devices = [{**device, "place": guest["server"]} for device in guest["devices"]]
    return {
        **guest,
        "state": ATTACHED,
        "why": "its client runs it by itself",
        "devices": devices,
        "exit_status": None,
    }
