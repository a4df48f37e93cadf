"""Who runs what: clients and VMs as the panel knows them, and how VMs change. No I/O.

A VM's state::

    launching --> running <--> paused        running, paused --> suspending --> suspended
        |            |            |                                                 |
        v            v            v                           running <-- resuming <'
     failed       stopped, failed, lost          running, paused <--> migrating

``lost``: its client is gone, or came back without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from devserver.rpc import RpcError


class VmState(StrEnum):
    """Where a VM stands."""

    LAUNCHING = "launching"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    MIGRATING = "migrating"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"


S = VmState
_STEPS: dict[VmState, tuple[VmState, ...]] = {
    S.LAUNCHING: (S.RUNNING, S.FAILED, S.LOST, S.STOPPED),
    S.RUNNING: (S.PAUSED, S.SUSPENDING, S.MIGRATING, S.STOPPED, S.FAILED, S.LOST),
    S.PAUSED: (S.RUNNING, S.SUSPENDING, S.MIGRATING, S.STOPPED, S.FAILED, S.LOST),
    S.SUSPENDING: (S.SUSPENDED, S.RUNNING, S.FAILED, S.LOST, S.STOPPED),
    S.SUSPENDED: (S.RESUMING,),
    S.RESUMING: (S.RUNNING, S.SUSPENDED, S.FAILED, S.LOST, S.STOPPED),
    S.MIGRATING: (S.RUNNING, S.PAUSED, S.FAILED, S.LOST, S.STOPPED),
    S.STOPPED: (),
    S.FAILED: (),
    S.LOST: (S.RUNNING, S.PAUSED, S.STOPPED, S.FAILED),
}
#: States in which a client has the VM.
PLACED = (S.LAUNCHING, S.RUNNING, S.PAUSED, S.SUSPENDING, S.RESUMING, S.MIGRATING)
#: States that a VM of the same name may be launched in the place of.
ENDED = (S.STOPPED, S.FAILED, S.LOST)


@dataclass
class Vm:
    """A VM. ``why`` says in a line how it came to where it stands, if that needs saying."""

    vm_id: int
    name: str
    client: str
    hypervisor: str = "kvm"
    state: VmState = S.LAUNCHING
    why: str = ""
    memory_bytes: int = 0
    devices: list[dict[str, Any]] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "state": str(self.state)}


@dataclass
class Client:
    """A client platform whose agent is connected, or was."""

    client_id: int
    name: str
    hostname: str = ""
    online: bool = True
    hypervisors: list[str] = field(default_factory=list)


class Fleet:
    """All clients and VMs."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.clients: dict[str, Client] = {}
        self.vms: dict[int, Vm] = {}

    # -- clients ------------------------------------------------------------------------------

    def client_came(
        self, name: str, hostname: str, hypervisors: list[str], vms: Iterable[dict[str, Any]]
    ) -> Client:
        """An agent is there, with these VMs: what it says is true. Raises :class:`RpcError`."""
        known = self.clients.get(name)
        if known is not None and known.online:
            raise RpcError(
                f"a client named '{name}' is connected already; give one of them another --name"
            )
        if known is None:
            known = self.clients[name] = Client(next(self._numbers), name)
        known.hostname, known.hypervisors, known.online = hostname, hypervisors, True
        here = {vm["vm_id"]: vm for vm in vms}
        for vm in self.vms.values():
            if vm.client == name and vm.vm_id not in here and vm.state in (*PLACED, S.LOST):
                self._put(vm, S.LOST, f"client '{name}' came back without it")
        for vm_id, report in here.items():
            self._reported(name, vm_id, report)
        return known

    def client_went(self, name: str) -> None:
        """An agent's connection is lost. VMs that migrate are the business of their migration."""
        self.clients[name].online = False
        for vm in self.vms.values():
            if vm.client == name and vm.state in PLACED and vm.state is not S.MIGRATING:
                self._put(vm, S.LOST, f"client '{name}' is gone")

    def choose_client(self, name: str | None, *, but: str = "") -> Client:
        """The client to launch on: the named one, or the one with the fewest VMs, not ``but``."""
        online = [client for client in self.clients.values() if client.online]
        if name is None:
            online = [client for client in online if client.name != but]
        if name is not None:
            for client in online:
                if client.name == name:
                    return client
            near = get_close_matches(name, [client.name for client in online], 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise RpcError(f"no client named '{name}' is connected{hint}")
        if not online:
            other = "other " if but else ""
            raise RpcError(
                f"no {other}client is connected; start 'kvmshim agent --server …' on one"
            )
        return min(online, key=lambda client: len(self._placed_on(client.name)))

    def _placed_on(self, name: str) -> list[Vm]:
        return [vm for vm in self.vms.values() if vm.client == name and vm.state in PLACED]

    def kept(self, vm_id: int, name: str, client: str, memory_bytes: int) -> None:
        """A VM was suspended before this panel began."""
        self.vms[vm_id] = Vm(
            vm_id, name, client, state=VmState.SUSPENDED, memory_bytes=memory_bytes
        )
        self._skip(vm_id)

    def _skip(self, number: int) -> None:
        """That number is taken."""
        while next(self._numbers) <= number:
            pass

    # -- VMs ----------------------------------------------------------------------------------

    def new_vm(self, name: str, client: str) -> Vm:
        """A VM that is to be launched; its name stands for one VM at a time."""
        for vm in list(self.vms.values()):
            if vm.name == name and vm.state not in ENDED:
                raise RpcError(
                    f"VM '{name}' is there already: it is {vm.state} on client '{vm.client}'; "
                    f"shut it down first, or choose another name"
                )
            if vm.name == name:
                del self.vms[vm.vm_id]
        vm = Vm(next(self._numbers), name, client)
        self.vms[vm.vm_id] = vm
        return vm

    def find(self, what: str) -> Vm:
        """A VM by its name or number. Raises :class:`RpcError`."""
        for vm in self.vms.values():
            if vm.name == what or str(vm.vm_id) == what:
                return vm
        near = get_close_matches(what, [vm.name for vm in self.vms.values()], 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise RpcError(f"there is no VM '{what}'{hint}")

    def step(self, vm: Vm, state: VmState, why: str = "") -> None:
        """Puts a VM into another state. Raises :class:`RpcError` if it can't go there."""
        if state not in _STEPS[vm.state]:
            raise RpcError(f"VM '{vm.name}' is {vm.state}; it can't be made {state}")
        self._put(vm, state, why)

    @staticmethod
    def _put(vm: Vm, state: VmState, why: str = "") -> None:
        vm.state, vm.why = state, why

    def _reported(self, client: str, vm_id: int, report: dict[str, Any]) -> None:
        vm = self.vms.get(vm_id)
        if vm is None:  # from the time before this panel
            vm = self.vms[vm_id] = Vm(vm_id, str(report["name"]), client)
            self._skip(vm_id)
        vm.client = client
        vm.devices = list(report.get("devices", []))
        vm.memory_bytes = int(report.get("memory_bytes", 0))
        self._put(vm, VmState(report["state"]), "")
