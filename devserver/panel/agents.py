"""What the panel does for agents: they report what they have, and what becomes of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from typing import Any

from devserver.panel.fleet import ENDED, PLACED, VmState
from devserver.panel.registry.errors import Taken
from devserver.panel.registry.registry import Registry
from devserver.panel.state import PanelState
from devserver.rpc import Gone, Handler, Peer, RpcError

log = logging.getLogger("devserver.panel")


class Agent:
    """A client platform."""

    def __init__(self, panel: PanelState, name: str) -> None:
        self.peer: Peer | None = None
        self._state = panel
        self._name = name
        self._registered = False

    def handlers(self) -> dict[str, Handler]:
        return {
            "register": self._state.whole(self._register),
            "changed": self._changed,
            "output": self._output,
            "memory": self._memory,
        }

    async def gone(self) -> None:
        panel = self._state
        async with panel.registering:  # what it is doing about its registration comes first
            if not self._registered:
                return
            self._registered = False
            del panel.agents[self._name]
            panel.fleet.client_went(self._name)
            panel.went(self._name)
            panel.records.touch()
            with contextlib.suppress(RpcError):
                await panel.records.do(Registry.client_went, self._name)
        for vm in list(panel.fleet.vms.values()):
            if vm.client == self._name and vm.state is VmState.LOST:
                await panel.close_console(vm.vm_id, vm.why)

    async def _register(
        self, hostname: str, hypervisors: list[dict[str, Any]], vms: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """An agent says what it is and has; what it must let go."""
        panel = self._state
        await panel.dismiss_silent(self._name)
        async with panel.registering:
            panel.fleet.check_name(self._name)
            client_id: int = await panel.records.do(
                Registry.client_came,
                self._name,
                hostname,
                hypervisors,
                only_registered=panel.only_registered,
            )
            # Those run on: the registry, which is another one, knows nothing of them.
            foreign = [vm for vm in vms if await self._is_foreign(vm)]
            vms = [vm for vm in vms if vm not in foreign]
            known = [vm for vm in vms if await self._make_known(vm)]
            await self._check_it_stayed()
            verdict = panel.fleet.client_came(client_id, self._name, hostname, hypervisors, known)
            drop = [*verdict.drop, *(vm["vm_id"] for vm in vms if vm not in known)]
            panel.agents[self._name] = self
            self._registered = True
        await self._drop_states(vm["vm_id"] for vm in known)
        if drop:
            log.warning("client '%s' has VMs that are not its any more: %s", self._name, drop)
        panel.doubts.wait(self._name, verdict.wait)
        await panel.doubts.settle()
        return {"client_id": client_id, "drop": drop, "go": verdict.go}

    async def _check_it_stayed(self) -> None:
        """Raises :class:`Gone` if its connection has ended while it was being registered."""
        if self.peer is None or self.peer.gone.is_set():
            with contextlib.suppress(RpcError):
                await self._state.records.do(Registry.client_went, self._name)
            raise Gone(f"client '{self._name}' went away while it was being registered")

    async def _is_foreign(self, report: dict[str, Any]) -> bool:
        """Whether a VM's number is that of quite another VM: the registry has been replaced."""
        if report["state"] in ENDED:
            return False
        for row in await self._state.records.do(Registry.vms):
            if row["vm_id"] == report["vm_id"] and row["name"] != report["name"]:
                log.error(
                    "client '%s' runs VM '%s', whose number %d is that of VM '%s' in this "
                    "registry: it runs on and is not managed, until either has ended",
                    self._name,
                    report["name"],
                    row["vm_id"],
                    row["name"],
                )
                return True
        return False

    async def _make_known(self, report: dict[str, Any]) -> bool:
        """A VM that a client has is in the fleet; False if it may not be."""
        panel, vm_id, name = self._state, int(report["vm_id"]), str(report["name"])
        known, epoch = panel.fleet.vms.get(vm_id), int(report.get("epoch", 0))
        if known is not None and known.name == name:
            return True
        if report["state"] in ENDED:
            return False
        try:
            await panel.records.do(Registry.adopt_vm, vm_id, name, self._name, epoch)
        except Taken as error:
            log.warning("client '%s' has a VM that it can't have: %s", self._name, error)
            return False
        row = {"vm_id": vm_id, "name": name, "client": self._name, "state": "lost"}
        panel.fleet.add({**row, "epoch": epoch})
        return True

    async def _drop_states(self, vm_ids: Iterable[int]) -> None:
        """VMs that run need the states no longer that they were resumed from."""
        for vm_id in vm_ids:
            vm = self._state.fleet.vms.get(vm_id)
            if vm is not None and vm.has_state and vm.state in PLACED:
                await self._state.records.do(Registry.without_state, vm_id, str(vm.state))
                vm.has_state = False

    async def _changed(
        self,
        vm_id: int,
        state: str,
        why: str,
        devices: list[dict[str, Any]],
        memory_bytes: int,
        hypervisor: str,
        epoch: int,
        exit_status: int | None = None,
    ) -> None:
        """A VM of this client is in another state."""
        vm = self._state.fleet.vms.get(vm_id)
        if vm is None or vm.client != self._name or epoch < vm.epoch:
            raise RpcError(f"VM {vm_id} is none of client '{self._name}'")
        if devices:
            vm.devices = devices
        vm.memory_bytes = memory_bytes or vm.memory_bytes
        vm.hypervisor, vm.exit_status = hypervisor, exit_status
        if vm.state != state:
            self._state.fleet.step(vm, VmState(state), why)
        self._state.records.touch()
        if state in (VmState.STOPPED, VmState.FAILED):
            await self._state.close_console(vm_id, why or state)

    async def _memory(self, vm_id: int, data: bytes) -> None:
        """A part of the memory of a VM that leaves this client."""
        migration = self._state.migrations.get(vm_id)
        if migration is None:
            raise RpcError(f"VM {vm_id} is not on its way anywhere")
        await migration.memory(data)

    async def _output(self, vm_id: int, data: bytes, printed: int) -> None:
        self._state.show(vm_id, data, printed)
