"""VMs are suspended and resumed: their states come from one client and go to the same or another.

What decides is written in the registry, in one transaction, while nobody runs the VM: the client
that had it stands still until it is told, and the client that is to have it is ready and stands
still too. Whoever dies, the VM is there once afterwards: where the registry says.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from devserver.panel.fleet import Vm, VmState
from devserver.panel.registry.blobs import STATE
from devserver.panel.registry.errors import Uncertain
from devserver.panel.registry.registry import Registry
from devserver.panel.state import PanelState
from devserver.rpc import LONG_S, Gone, Peer, RpcError

_RETRY_S = 0.5
#: What a VM that was being resumed is when its client has gone.
_NOT_THERE = (VmState.SUSPENDED, VmState.LOST)


class Suspension:
    """The two orders. Both raise :class:`RpcError`, with the VM where it was."""

    def __init__(self, panel: PanelState) -> None:
        self._state = panel

    async def suspend(self, vm: str) -> dict[str, Any]:
        """Takes a VM's whole state from its client, which then has it no longer."""
        panel = self._state
        found = await panel.find(vm)
        agent = panel.agent_of(found)
        before = found.state
        panel.fleet.step(found, VmState.SUSPENDING)
        try:
            answer = await agent.call("suspend", LONG_S, vm_id=found.vm_id)
            with agent.parcels.open(answer["parcel"]) as file:
                await self._keep(found, Path(file.name))
        except RpcError as error:
            with contextlib.suppress(RpcError):  # it may go on already
                await agent.call("unsuspend", vm_id=found.vm_id)
            if found.state is VmState.SUSPENDING:  # else it has ended, or its client is gone
                panel.fleet.step(found, before, f"suspending failed: {error}")
            raise RpcError(f"VM '{found.name}' can't be suspended: {error}") from None
        # A client that is gone by now is told when it comes back.
        found.state, found.why, found.has_state = VmState.SUSPENDED, "", True
        with contextlib.suppress(RpcError):
            await agent.call("suspended", vm_id=found.vm_id)
        await panel.close_console(found.vm_id, "suspended")
        return found.shown()

    async def _keep(self, vm: Vm, path: Path) -> None:
        epoch = vm.epoch + 1
        try:
            epoch = await self._state.records.do(Registry.suspended, vm.vm_id, path)
        except Uncertain:
            if not await self._is_kept(vm):
                raise
        vm.epoch = epoch

    async def resume(self, vm: str, client: str | None) -> dict[str, Any]:
        """Has a suspended VM go on, on this client or another; or a paused one."""
        panel, fleet = self._state, self._state.fleet
        found = await panel.claim(vm)
        if found.state is VmState.PAUSED:
            await panel.agent_of(found).call("unpause", vm_id=found.vm_id)
            return found.shown()
        if found.state is VmState.LOST and not found.has_state:
            raise RpcError(f"VM '{found.name}' is lost, and no state of it is kept")
        chosen = fleet.choose_client(client, kind=found.hypervisor)
        fleet.step(found, VmState.RESUMING)
        before, found.client = found.client, chosen.name
        agent: Peer | None = None
        try:
            agent = panel.agent_of(found)
            # If this can't be written, nothing has been begun.
            found.epoch = await panel.records.do(
                Registry.place_vm, found.vm_id, chosen.name, str(VmState.RESUMING)
            )
            await self._bring(found, agent)
            await self._let_run(found)
        except RpcError as error:
            await self._not_resumed(found, agent, before, error)
            raise RpcError(f"VM '{found.name}' can't be resumed: {error}") from None
        await self._go(found, agent)
        return found.shown()

    async def _bring(self, vm: Vm, agent: Peer) -> None:
        """The state goes to a client, which makes the VM ready, and does not run it yet."""
        with tempfile.NamedTemporaryFile(prefix="kvmshim-state-") as file:
            await self._state.records.do(Registry.get_blob, vm.vm_id, STATE, file)
            parcel = await agent.send_parcel(Path(file.name))
        more = {"name": vm.name, "parcel": parcel, "epoch": vm.epoch}
        await agent.call("restore", LONG_S, vm_id=vm.vm_id, **more)

    async def _let_run(self, vm: Vm) -> None:
        """From here on the VM is its client's, and what it was is kept no longer."""
        if vm.state in _NOT_THERE:
            raise Gone(f"client '{vm.client}' is gone")
        try:
            await self._state.records.do(Registry.without_state, vm.vm_id, str(VmState.RUNNING))
        except Uncertain:
            if await self._is_kept(vm):
                raise
        vm.has_state = False
        if vm.state in _NOT_THERE:  # its client went meanwhile, and has the VM
            vm.state, vm.why = VmState.LOST, f"client '{vm.client}' is gone"

    async def _go(self, vm: Vm, agent: Peer) -> None:
        watched = bool(self._state.viewers.get(vm.vm_id))
        try:
            await agent.call("go", vm_id=vm.vm_id, run=True, watched=watched)
        except RpcError as error:
            raise RpcError(
                f"VM '{vm.name}' is client '{vm.client}''s now, and does not run: {error}; it goes "
                f"on when the client comes back with it"
            ) from None
        if vm.state is VmState.RESUMING:
            self._state.fleet.step(vm, VmState.RUNNING)

    async def _not_resumed(self, vm: Vm, agent: Peer | None, before: str, error: RpcError) -> None:
        if agent is not None:
            with contextlib.suppress(RpcError):
                await agent.call("abort", vm_id=vm.vm_id)
        if vm.state is VmState.RESUMING:
            self._state.fleet.step(vm, VmState.SUSPENDED, f"resuming failed: {error}")
        if vm.state is VmState.SUSPENDED:
            vm.client = before

    async def _is_kept(self, vm: Vm) -> bool:
        """Whether the registry has a state of a VM, when a transaction's end was not heard.

        Asks until the registry answers: it alone knows where the VM is.
        """
        while True:
            try:
                return await self._state.records.do(Registry.has_blob, vm.vm_id, STATE)
            except RpcError:
                await asyncio.sleep(_RETRY_S)
