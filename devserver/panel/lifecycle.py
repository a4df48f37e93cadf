"""VMs from their registration to their end, as operators order it."""

from __future__ import annotations

import logging
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from devserver.panel.fleet import ENDED, Vm, VmState
from devserver.panel.migration import Migration, Way
from devserver.panel.registry.blobs import IMAGE
from devserver.panel.registry.registry import Registry
from devserver.panel.state import PanelState, checked
from devserver.rpc import Gone, RpcError, Unable

log = logging.getLogger("devserver.panel")

_KVM = "kvm"
#: A VM in one of these is no client's.
_FREE = (*ENDED, VmState.DEFINED, VmState.SUSPENDED)


class Lifecycle:
    """Orders that change VMs. All raise :class:`RpcError`, with the VM where it was."""

    def __init__(self, panel: PanelState) -> None:
        self._state = panel

    # -- beginning ----------------------------------------------------------------------------

    async def launch(
        self, name: str, machine: str, image: Path, image_name: str, client: str | None
    ) -> dict[str, Any]:
        """Runs a VM: a machine file's text and the image that it boots."""
        panel, fleet = self._state, self._state.fleet
        checked("a VM", name)
        for before in [vm for vm in fleet.vms.values() if vm.name == name]:
            await panel.await_return(before)
        chosen = fleet.choose_client(client, kind=_kind_of(machine))
        fleet.check_free(name)
        number: int = await panel.records.do(
            Registry.new_vm, name, chosen.name, hypervisor=_kind_of(machine)
        )
        vm = fleet.new_vm(number, name, chosen.name)
        vm.hypervisor = _kind_of(machine)
        await self._run(vm, machine, image, image_name, anywhere=client is None)
        return vm.shown()

    async def register(
        self, name: str, machine: str, image: Path, image_name: str
    ) -> dict[str, Any]:
        """Keeps a VM with its image, to be started later."""
        panel = self._state
        checked("a VM", name)
        panel.fleet.check_free(name)
        kind = _kind_of(machine)
        more = {"machine": machine, "image_name": image_name, "hypervisor": kind}
        number: int = await panel.records.do(
            Registry.new_vm, name, "", state="defined", registered=True, **more
        )
        try:
            await panel.records.do(Registry.put_blob, number, IMAGE, image)
        except RpcError:
            await panel.records.do(Registry.remove_vm, number)
            raise
        vm = panel.fleet.new_vm(number, name, "")
        vm.state, vm.registered = VmState.DEFINED, True
        vm.machine, vm.image_name, vm.hypervisor = machine, image_name, kind
        return vm.shown()

    async def start(self, vm: str, client: str | None) -> dict[str, Any]:
        """Runs a registered VM."""
        panel = self._state
        found = await panel.claim(vm)
        if not found.registered:
            raise RpcError(
                f"VM '{found.name}' is not registered; 'devserver vm launch' runs images"
            )
        kind = _kind_of(found.machine)
        chosen = panel.fleet.choose_client(client, kind=kind)
        await self._place(found, chosen.name)
        with tempfile.NamedTemporaryFile(prefix="kvmshim-image-") as file:
            try:
                await panel.records.do(Registry.get_blob, found.vm_id, IMAGE, file)
            except RpcError as error:
                panel.fleet.step(found, VmState.FAILED, str(error))
                raise
            image = Path(file.name)
            await self._run(found, found.machine, image, found.image_name, anywhere=client is None)
        return found.shown()

    async def _run(
        self, vm: Vm, machine: str, image: Path, image_name: str, *, anywhere: bool
    ) -> None:
        """Runs a VM on its client, or (``anywhere``) on another if that one can't."""
        fleet, tried = self._state.fleet, set[str]()
        while True:
            try:
                await self._run_there(vm, machine, image, image_name)
                return
            except RpcError as error:
                tried.add(vm.client)
                if vm.state is VmState.LAUNCHING:
                    gone = isinstance(error, Gone)
                    fleet.step(vm, VmState.LOST if gone else VmState.FAILED, str(error))
                other = self._instead(vm, tried, error) if anywhere else None
                if other is None:
                    raise RpcError(f"VM '{vm.name}' can't be launched: {error}") from None
                log.warning("client '%s' can't run VM '%s': %s", vm.client, vm.name, error)
                await self._place(vm, other)

    async def _place(self, vm: Vm, client: str) -> None:
        """A VM is to be launched on a client; that is written before anything is begun."""
        async with self._state.registering:  # no client says meanwhile that it has the VM
            before, why = vm.state, vm.why
            self._state.fleet.step(vm, VmState.LAUNCHING)
            try:
                vm.epoch = await self._state.records.do(
                    Registry.place_vm, vm.vm_id, client, str(VmState.LAUNCHING)
                )
            except RpcError:
                vm.state, vm.why = before, why
                raise
            vm.client = client

    def _instead(self, vm: Vm, tried: set[str], error: RpcError) -> str | None:
        """Another client to launch a VM on, if it never ran on the one that failed."""
        began = vm.memory_bytes > 0  # its client has told of it
        if began or vm.state not in ENDED or not isinstance(error, Gone | Unable):
            return None
        try:
            return self._state.fleet.choose_client(None, but=tried, kind=vm.hypervisor).name
        except RpcError:
            return None

    async def _run_there(self, vm: Vm, machine: str, image: Path, image_name: str) -> None:
        vm.devices, vm.memory_bytes, vm.exit_status = [], 0, None
        peer = self._state.agents[vm.client].peer if vm.client in self._state.agents else None
        if peer is None:
            raise Gone(f"client '{vm.client}' is gone")
        try:
            parcel = await peer.send_parcel(image)
            more = {"machine": machine, "image": parcel, "image_name": image_name}
            await peer.call("launch", vm_id=vm.vm_id, name=vm.name, epoch=vm.epoch, **more)
        except OSError as error:
            raise Gone(f"the connection to client '{vm.client}' was lost: {error}") from None

    # -- running ------------------------------------------------------------------------------

    async def pause(self, vm: str) -> dict[str, Any]:
        """Has a VM stand still."""
        found = await self._state.find(vm)
        await self._state.agent_of(found).call("pause", vm_id=found.vm_id)
        return found.shown()

    async def migrate(self, vm: str, client: str | None) -> dict[str, Any]:
        """Has a VM run on at another client, with its devices where they are."""
        panel, fleet = self._state, self._state.fleet
        found = await panel.find(vm)
        source = panel.agent_of(found)
        chosen = fleet.choose_client(client, but=[found.client], kind=found.hypervisor)
        if chosen.name == found.client:
            raise RpcError(f"VM '{found.name}' is on client '{chosen.name}' already")
        target = panel.agents[chosen.name].peer
        assert target is not None
        way = Way(source, target, chosen.name)
        migration = Migration(
            fleet, panel.records, found, way, lambda: bool(panel.viewers.get(found.vm_id))
        )
        fleet.step(found, VmState.MIGRATING, f"to client '{chosen.name}'")
        panel.migrations[found.vm_id] = migration
        try:
            took = await migration.run()
        except RpcError:
            if found.state in ENDED:
                await panel.close_console(found.vm_id, found.why)
            raise
        finally:
            del panel.migrations[found.vm_id]
            migration.over.set()
        return {**found.shown(), **took}

    async def move_device(self, vm: str, device: str, to: dict[str, Any]) -> dict[str, Any]:
        """Has a device run somewhere else."""
        found = await self._state.find(vm)
        if found.state not in (VmState.RUNNING, VmState.PAUSED):
            raise RpcError(f"VM '{found.name}' is {found.state}; its devices stay where they are")
        agent = self._state.agent_of(found)
        await agent.call("move_device", vm_id=found.vm_id, device=device, to=to)
        return found.shown()

    # -- ending -------------------------------------------------------------------------------

    async def shutdown(self, vm: str, kill: bool) -> dict[str, Any]:
        """Ends a VM's run; of a suspended one, drops its state."""
        panel = self._state
        found = await panel.find(vm)
        if found.state is VmState.SUSPENDED:
            why = "its suspended state was dropped"
            await panel.records.do(Registry.without_state, found.vm_id, str(VmState.STOPPED), why)
            found.has_state, found.state, found.why = False, VmState.STOPPED, why
        elif found.state in _FREE:
            raise RpcError(f"VM '{found.name}' is {found.state}; it does not run")
        else:
            await panel.agent_of(found).call("stop", vm_id=found.vm_id, kill=kill)
            if found.state not in ENDED:  # its own word may come later
                panel.fleet.step(found, VmState.STOPPED, "shut down")
        return found.shown()

    async def remove(self, vm: str) -> dict[str, Any]:
        """Forgets a VM that does not run, with its image and state."""
        panel = self._state
        found = await panel.claim(vm)
        if found.state not in _FREE:
            raise RpcError(f"VM '{found.name}' is {found.state}; shut it down first")
        await panel.records.do(Registry.remove_vm, found.vm_id)
        del panel.fleet.vms[found.vm_id]
        return found.shown()


def _kind_of(machine: str) -> str:
    """The hypervisor that a machine file asks for; what is wrong in it, the client says."""
    try:
        return str(tomllib.loads(machine).get("machine", {}).get("hypervisor", _KVM))
    except (tomllib.TOMLDecodeError, AttributeError):
        return _KVM
