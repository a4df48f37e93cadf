"""What the panel does for operators: they look, order, and sit at consoles."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from devserver.panel.elsewhere import UNREACHABLE, exit_status
from devserver.panel.fleet import ENDED, PLACED
from devserver.panel.lifecycle import Lifecycle
from devserver.panel.registry.registry import Registry
from devserver.panel.state import ATTACHED, PanelState, checked
from devserver.panel.suspension import Suspension
from devserver.rpc import Handler, Peer, RpcError


class Operator:
    """Somebody who manages VMs."""

    def __init__(self, panel: PanelState) -> None:
        self.peer: Peer | None = None
        self._state = panel
        self._lifecycle = Lifecycle(panel)
        self._suspension = Suspension(panel)

    def handlers(self) -> dict[str, Handler]:
        life, whole = self._lifecycle, self._state.whole
        return {
            "servers": self._servers,
            "clients": self._clients,
            "vms": self._state.vms,
            "show": self._show,
            "wait": self._wait,
            "register_client": whole(self._register_client),
            "register": whole(self._register),
            "launch": whole(self._launch),
            "start": whole(life.start),
            "shutdown": whole(life.shutdown),
            "remove": whole(life.remove),
            "pause": whole(life.pause),
            "suspend": whole(self._suspension.suspend),
            "resume": whole(self._suspension.resume),
            "migrate": whole(life.migrate),
            "move_device": whole(self._move_device),
            "console": self._console,
            "input": self._input,
        }

    async def gone(self) -> None:
        for vm_id, viewers in list(self._state.viewers.items()):
            viewers.pop(self, None)
            if not viewers:
                await self._close_console_of(vm_id)
            if self._state.writers.get(vm_id) is self:
                del self._state.writers[vm_id]

    async def _close_console_of(self, vm_id: int) -> None:
        self._state.viewers.pop(vm_id, None)
        vm = self._state.fleet.vms.get(vm_id)
        if vm is not None and vm.client in self._state.agents:
            await self._state.agent_of(vm).note("unwatch", vm_id=vm_id)

    # -- looking ------------------------------------------------------------------------------

    async def _servers(self) -> dict[str, Any]:
        """The servers that are here, and those that the registry knows besides."""
        panel = self._state
        answer = await panel.ask_host()
        here = [{**server, "up": True, "owner": ""} for server in answer["servers"]]
        for server in here[1:]:
            server["owner"] = panel.records.server
        names = {server["name"] for server in here}
        known = await panel.records.do(Registry.servers)
        others = [row for row in known if row["name"] not in names]
        for row in others:
            del row["heard"]
            row["kind"] = "io" if row["owner"] else "owner"
        return {**answer, "servers": [*here, *others]}

    async def _clients(self) -> list[dict[str, Any]]:
        panel = self._state
        rows = await panel.records.do(Registry.clients)
        vms = await panel.vms()
        for row in rows:
            row["online"] = bool(row["server"])
            row["vms"] = [
                vm["name"]
                for vm in vms
                if vm["client"] == row["name"] and vm["state"] in (*PLACED, ATTACHED, UNREACHABLE)
            ]
        return rows

    async def _show(self, vm: str) -> dict[str, Any]:
        panel = self._state
        for one in panel.fleet.vms.values():  # also while the registry can't be had
            if vm in (one.name, str(one.vm_id)):
                shown = {**one.shown(), "server": panel.records.server}
                return {**shown, "exit_status": exit_status(shown)}
        for row in await panel.vms():
            if vm in (row["name"], str(row["vm_id"])):
                return row
        return (await panel.find(vm)).shown()

    async def _wait(self, vm: str) -> dict[str, Any]:
        """Answers when a VM has ended."""
        found = await self._state.find(vm)
        await self._state.await_end(found)
        shown = found.shown()
        return {**shown, "exit_status": exit_status(shown)}

    # -- ordering -----------------------------------------------------------------------------

    async def _register_client(self, name: str) -> int:
        checked("a client", name)
        number: int = await self._state.records.do(Registry.register_client, name)
        return number

    async def _launch(self, image: int, **more: Any) -> dict[str, Any]:
        """``image``: the number of the parcel that it came as."""
        assert self.peer is not None
        with self.peer.parcels.open(image) as file:
            return await self._lifecycle.launch(image=Path(file.name), **more)

    async def _register(self, image: int, **more: Any) -> dict[str, Any]:
        assert self.peer is not None
        with self.peer.parcels.open(image) as file:
            return await self._lifecycle.register(image=Path(file.name), **more)

    async def _move_device(self, vm: str, device: str, target: str) -> dict[str, Any]:
        """Has a device run on another server, or (``local``) in the client."""
        to = destination(target, (await self._state.ask_host())["servers"])
        return await self._lifecycle.move_device(vm, device, to)

    # -- consoles -----------------------------------------------------------------------------

    async def _console(self, vm: str, write: bool) -> dict[str, Any]:
        """Shows a VM's console from now on, beginning with what was printed last."""
        found = await self._state.find(vm)
        writer = self._state.writers.get(found.vm_id)
        if write and writer is not None and writer is not self:
            raise RpcError(f"somebody else types on the console of VM '{found.name}'; look with -r")
        agent = self._state.agent_of(found)
        if write:
            self._state.writers[found.vm_id] = self
        try:
            backlog, printed = await agent.call("watch", vm_id=found.vm_id)
        except RpcError:
            await self.gone()
            raise
        self._state.viewers.setdefault(found.vm_id, {})[self] = printed
        if self.peer is None or self.peer.gone.is_set():  # while that was asked
            await self.gone()
        if found.state in ENDED and self.peer is not None:  # by now
            await self.peer.note("console_closed", vm_id=found.vm_id, why=found.why)
        return {"vm_id": found.vm_id, "backlog": backlog}

    async def _input(self, vm_id: int, data: bytes) -> None:
        if self._state.writers.get(vm_id) is not self:
            raise RpcError("this console is looked at only")
        migration = self._state.migrations.get(vm_id)
        if migration is not None:  # nothing that is typed is lost on the way
            await migration.over.wait()
        await self._state.agent_of(self._state.fleet.vms[vm_id]).call(
            "type", vm_id=vm_id, data=data
        )


def destination(target: str, servers: list[dict[str, Any]]) -> dict[str, Any]:
    """Where a device is to go, in the agent's words. Raises :class:`RpcError`."""
    if target == "local":
        return {}
    for server in servers:
        if target == server["name"] or (target == "server" and server["kind"] == "owner"):
            owner = server["kind"] == "owner"
            return {
                "server_id": server["server_id"],
                "name": server["name"],
                "address": server["address"],
                "place": "server" if owner else f"server/{server['name']}",
            }
    names = ["local", "server", *(server["name"] for server in servers)]
    near = get_close_matches(target, names, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names)}"
    raise RpcError(f"'{target}' is no place for a device; {hint}")
