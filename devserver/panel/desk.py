"""What the panel does for those who come: agents report, operators order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from devserver.panel.fleet import ENDED, Fleet, Vm, VmState
from devserver.panel.migration import Migration
from devserver.panel.shelf import Kept, Shelf
from devserver.rpc import Handler, Peer, RpcError

log = logging.getLogger("devserver.panel")

#: Asks the device host for the servers that it knows and what it has refused.
AskHost = Callable[[], Awaitable[dict[str, Any]]]


class Visitor(Protocol):
    """Somebody connected to the panel."""

    peer: Peer | None

    def handlers(self) -> dict[str, Handler]:
        """What it may ask for."""

    async def gone(self) -> None:
        """Its connection has ended."""


class Desk:
    """The fleet, and who is connected."""

    def __init__(self, ask_host: AskHost, shelf: Shelf) -> None:
        self.fleet = Fleet()
        self.shelf = shelf
        for kept in shelf.all():
            self.fleet.kept(**vars(kept))
        self.ask_host = ask_host
        self.agents: dict[str, Agent] = {}
        self._begun: set[asyncio.Future[Any]] = set()
        #: VMs on their way to another client.
        self.migrations: dict[int, Migration] = {}
        #: Who looks at a VM's console, by VM.
        self.viewers: dict[int, list[Operator]] = {}
        #: Who may type on it.
        self.writers: dict[int, Operator] = {}

    def visitor(self, role: str, name: str) -> Visitor:
        """Somebody new; raises :class:`RpcError` for a role that is none."""
        if role == "agent":
            return Agent(self, name)
        if role == "operator":
            return Operator(self)
        raise RpcError(f"there is no role '{role}'")

    def agent_of(self, vm: Vm) -> Peer:
        """The agent that has a VM. Raises :class:`RpcError`."""
        agent = self.agents.get(vm.client)
        if agent is None or agent.peer is None:
            raise RpcError(f"client '{vm.client}', which has VM '{vm.name}', is not connected")
        return agent.peer

    def whole(self, handler: Handler) -> Handler:
        """Has what was begun come to its end though whoever asked for it goes away."""

        async def do(**arguments: Any) -> Any:
            task = asyncio.ensure_future(handler(**arguments))
            self._begun.add(task)
            task.add_done_callback(self._begun.discard)
            return await asyncio.shield(task)

        return do

    async def watch_again(self, vm: Vm) -> None:
        """A VM that somebody looks at is with another client: that is to show it from now on."""
        if self.viewers.get(vm.vm_id):
            with contextlib.suppress(RpcError):
                await self.agent_of(vm).call("watch", vm_id=vm.vm_id)

    async def close_console(self, vm_id: int, why: str) -> None:
        """Tells everybody who looks at a console that it has ended."""
        for viewer in self.viewers.pop(vm_id, []):
            if viewer.peer is not None:
                await viewer.peer.note("console_closed", vm_id=vm_id, why=why)
        self.writers.pop(vm_id, None)


class Agent:
    """A client platform."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.peer: Peer | None = None
        self._desk = desk
        self._name = name
        self._registered = False

    def handlers(self) -> dict[str, Handler]:
        return {
            "register": self._register,
            "changed": self._changed,
            "output": self._output,
            "memory": self._memory,
        }

    async def gone(self) -> None:
        if not self._registered:
            return
        del self._desk.agents[self._name]
        self._desk.fleet.client_went(self._name)
        for vm in self._desk.fleet.vms.values():
            if vm.client == self._name and vm.state is VmState.LOST:
                await self._desk.close_console(vm.vm_id, vm.why)

    async def _register(
        self, hostname: str, hypervisors: list[str], vms: list[dict[str, Any]]
    ) -> dict[str, Any]:
        client = self._desk.fleet.client_came(self._name, hostname, hypervisors, vms)
        self._desk.agents[self._name] = self
        self._registered = True
        return {"client_id": client.client_id}

    async def _changed(
        self, vm_id: int, state: str, why: str, devices: list[dict[str, Any]], memory_bytes: int
    ) -> None:
        """A VM of this client is in another state."""
        vm = self._desk.fleet.vms.get(vm_id)
        if vm is None or vm.client != self._name:
            raise RpcError(f"VM {vm_id} is none of client '{self._name}'")
        if devices:
            vm.devices = devices
        vm.memory_bytes = memory_bytes or vm.memory_bytes
        if vm.state != state:
            self._desk.fleet.step(vm, VmState(state), why)
        if state in (VmState.STOPPED, VmState.FAILED):
            await self._desk.close_console(vm_id, why or state)

    async def _memory(self, vm_id: int, data: bytes) -> None:
        """A part of the memory of a VM that leaves this client."""
        migration = self._desk.migrations.get(vm_id)
        if migration is None:
            raise RpcError(f"VM {vm_id} is not on its way anywhere")
        await migration.memory(data)

    async def _output(self, vm_id: int, data: bytes) -> None:
        for viewer in list(self._desk.viewers.get(vm_id, [])):
            if viewer.peer is not None:
                await viewer.peer.note("output", vm_id=vm_id, data=data)


class Operator:
    """Somebody who manages VMs."""

    def __init__(self, desk: Desk) -> None:
        self.peer: Peer | None = None
        self._desk = desk

    def handlers(self) -> dict[str, Handler]:
        whole = self._desk.whole
        return {
            "servers": self._desk.ask_host,
            "clients": self._clients,
            "vms": self._vms,
            "show": self._show,
            "launch": whole(self._launch),
            "shutdown": whole(self._shutdown),
            "pause": whole(self._pause),
            "unpause": whole(self._unpause),
            "suspend": whole(self._suspend),
            "resume": whole(self._resume),
            "migrate": whole(self._migrate),
            "move_device": whole(self._move_device),
            "console": self._console,
            "input": self._input,
        }

    async def gone(self) -> None:
        for vm_id, viewers in list(self._desk.viewers.items()):
            if self in viewers:
                viewers.remove(self)
            if not viewers:
                await self._close_console_of(vm_id)
            if self._desk.writers.get(vm_id) is self:
                del self._desk.writers[vm_id]

    async def _close_console_of(self, vm_id: int) -> None:
        self._desk.viewers.pop(vm_id, None)
        vm = self._desk.fleet.vms.get(vm_id)
        if vm is not None and vm.client in self._desk.agents:
            await self._desk.agent_of(vm).note("unwatch", vm_id=vm_id)

    # -- looking ------------------------------------------------------------------------------

    async def _clients(self) -> list[dict[str, Any]]:
        fleet = self._desk.fleet
        return [
            {
                "client_id": client.client_id,
                "name": client.name,
                "hostname": client.hostname,
                "online": client.online,
                "hypervisors": client.hypervisors,
                "vms": [vm.name for vm in fleet.vms.values() if vm.client == client.name],
            }
            for client in fleet.clients.values()
        ]

    async def _vms(self) -> list[dict[str, Any]]:
        return [vm.shown() for vm in self._desk.fleet.vms.values()]

    async def _show(self, vm: str) -> dict[str, Any]:
        return self._desk.fleet.find(vm).shown()

    # -- a VM's life --------------------------------------------------------------------------

    async def _launch(
        self, name: str, machine: str, image: int, image_name: str, client: str | None
    ) -> dict[str, Any]:
        """Runs a VM: a machine file's text and the image that it boots, which came as a parcel."""
        fleet = self._desk.fleet
        assert self.peer is not None
        with self.peer.parcels.open(image) as file:
            chosen = fleet.choose_client(client)
            vm = fleet.new_vm(name, chosen.name)
            try:
                agent = self._desk.agent_of(vm)
                parcel = await agent.send_parcel(Path(file.name))
                await agent.call(
                    "launch",
                    vm_id=vm.vm_id,
                    name=name,
                    machine=machine,
                    image=parcel,
                    image_name=image_name,
                )
            except RpcError as error:
                if vm.state is VmState.LAUNCHING:
                    fleet.step(vm, VmState.FAILED, str(error))
                raise RpcError(f"VM '{name}' can't be launched: {error}") from None
        return vm.shown()

    async def _shutdown(self, vm: str, kill: bool) -> dict[str, Any]:
        found = self._desk.fleet.find(vm)
        if found.state is VmState.SUSPENDED:
            self._desk.fleet.step(found, VmState.RESUMING)
            self._desk.fleet.step(found, VmState.STOPPED, "its suspended state was dropped")
            self._desk.shelf.drop(found.vm_id)
        else:
            await self._desk.agent_of(found).call("stop", vm_id=found.vm_id, kill=kill)
        return found.shown()

    async def _pause(self, vm: str) -> dict[str, Any]:
        found = self._desk.fleet.find(vm)
        await self._desk.agent_of(found).call("pause", vm_id=found.vm_id)
        return found.shown()

    async def _unpause(self, vm: str) -> dict[str, Any]:
        found = self._desk.fleet.find(vm)
        await self._desk.agent_of(found).call("unpause", vm_id=found.vm_id)
        return found.shown()

    async def _suspend(self, vm: str) -> dict[str, Any]:
        """Takes a VM's whole state from its client, which then has it no longer."""
        found = self._desk.fleet.find(vm)
        peer = self._desk.agent_of(found)
        self._desk.fleet.step(found, VmState.SUSPENDING)
        try:
            answer = await peer.call("suspend", vm_id=found.vm_id)
            kept = Kept(found.vm_id, found.name, found.client, found.memory_bytes)
            with peer.parcels.open(answer["parcel"]) as file:
                await asyncio.to_thread(self._desk.shelf.put, kept, Path(file.name))
            await peer.call("suspended", vm_id=found.vm_id)
        except RpcError as error:
            self._desk.shelf.drop(found.vm_id)
            if found.state is VmState.SUSPENDING:
                self._desk.fleet.step(found, VmState.RUNNING, f"suspending failed: {error}")
            raise RpcError(f"VM '{found.name}' can't be suspended: {error}") from None
        self._desk.fleet.step(found, VmState.SUSPENDED)
        await self._desk.close_console(found.vm_id, "suspended")
        return found.shown()

    async def _resume(self, vm: str, client: str | None) -> dict[str, Any]:
        """Has a suspended VM go on, on this client or another."""
        fleet = self._desk.fleet
        found = fleet.find(vm)
        if found.state is VmState.PAUSED:
            return await self._unpause(vm)
        fleet.step(found, VmState.RESUMING)
        before = found.client
        try:
            found.client = fleet.choose_client(client).name
            agent = self._desk.agent_of(found)
            parcel = await agent.send_parcel(self._desk.shelf.state(found.vm_id))
            await agent.call("restore", vm_id=found.vm_id, name=found.name, parcel=parcel)
        except RpcError as error:
            if found.state is VmState.RESUMING:
                fleet.step(found, VmState.SUSPENDED, f"resuming failed: {error}")
                found.client = before
            raise RpcError(f"VM '{found.name}' can't be resumed: {error}") from None
        self._desk.shelf.drop(found.vm_id)
        return found.shown()

    async def _migrate(self, vm: str, client: str | None) -> dict[str, Any]:
        """Has a VM run on at another client, with its devices where they are."""
        desk, fleet = self._desk, self._desk.fleet
        found = fleet.find(vm)
        source = desk.agent_of(found)
        chosen = fleet.choose_client(client, but=found.client)
        if chosen.name == found.client:
            raise RpcError(f"VM '{found.name}' is on client '{chosen.name}' already")
        if found.hypervisor not in chosen.hypervisors:
            raise RpcError(
                f"client '{chosen.name}' has no hypervisor '{found.hypervisor}', which VM "
                f"'{found.name}' runs on"
            )
        target = desk.agents[chosen.name].peer
        assert target is not None
        migration = Migration(fleet, found, source, target, chosen.name)
        desk.migrations[found.vm_id] = migration
        try:
            took = await migration.run()
        except RpcError:
            if found.state in ENDED:
                await desk.close_console(found.vm_id, found.why)
            raise
        finally:
            del desk.migrations[found.vm_id]
        await desk.watch_again(found)
        return {**found.shown(), **took}

    async def _move_device(self, vm: str, device: str, target: str) -> dict[str, Any]:
        """Has a device run on another server, or (``local``) in the client."""
        found = self._desk.fleet.find(vm)
        if found.state not in (VmState.RUNNING, VmState.PAUSED):
            raise RpcError(f"VM '{found.name}' is {found.state}; its devices stay where they are")
        agent = self._desk.agent_of(found)
        to = destination(target, (await self._desk.ask_host())["servers"])
        await agent.call("move_device", vm_id=found.vm_id, device=device, to=to)
        return found.shown()

    # -- consoles -----------------------------------------------------------------------------

    async def _console(self, vm: str, write: bool) -> dict[str, Any]:
        """Shows a VM's console from now on, beginning with what was printed last."""
        found = self._desk.fleet.find(vm)
        writer = self._desk.writers.get(found.vm_id)
        if write and writer is not None and writer is not self:
            raise RpcError(f"somebody else types on the console of VM '{found.name}'; look with -r")
        agent = self._desk.agent_of(found)
        if write:
            self._desk.writers[found.vm_id] = self
        self._desk.viewers.setdefault(found.vm_id, []).append(self)
        try:
            backlog = await agent.call("watch", vm_id=found.vm_id)
        except RpcError:
            await self.gone()
            raise
        return {"vm_id": found.vm_id, "backlog": backlog}

    async def _input(self, vm_id: int, data: bytes) -> None:
        if self._desk.writers.get(vm_id) is not self:
            raise RpcError("this console is looked at only")
        await self._desk.agent_of(self._desk.fleet.vms[vm_id]).call("type", vm_id=vm_id, data=data)


def destination(target: str, servers: list[dict[str, Any]]) -> dict[str, Any]:
    """Where a device is to go, in the agent's words. Raises :class:`RpcError`."""
    if target == "local":
        return {}
    for server in servers:
        if target == server["name"]:
            owner = server["kind"] == "owner"
            return {
                "server_id": server["server_id"],
                "name": server["name"],
                "address": server["address"],
                "place": "server" if owner else f"server/{server['name']}",
            }
    names = ["local", *(server["name"] for server in servers)]
    near = get_close_matches(target, names, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names)}"
    raise RpcError(f"'{target}' is no place for a device; {hint}")
