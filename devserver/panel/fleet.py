"""Who runs what: clients and VMs as the panel knows them, and how VMs change. No I/O.

A VM's state::

    launching --> running <--> paused        running, paused --> suspending --> suspended
        |            |            |                                                 |
        v            v            v                           running <-- resuming <'
     failed       stopped, failed, lost          running, paused <--> migrating

``lost``: its client is gone, or came back without it. ``defined``: registered, with its image, and
not run yet; such a VM may be launched again when it has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from enum import Enum, StrEnum, auto
from operator import attrgetter
from typing import Any, NamedTuple

from devserver.rpc import RpcError


class VmState(StrEnum):
    """Where a VM stands."""

    DEFINED = "defined"
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
    S.DEFINED: (S.LAUNCHING,),
    S.LAUNCHING: (S.RUNNING, S.FAILED, S.LOST, S.STOPPED),
    S.RUNNING: (S.PAUSED, S.SUSPENDING, S.MIGRATING, S.STOPPED, S.FAILED, S.LOST),
    S.PAUSED: (S.RUNNING, S.SUSPENDING, S.MIGRATING, S.STOPPED, S.FAILED, S.LOST),
    S.SUSPENDING: (S.SUSPENDED, S.RUNNING, S.PAUSED, S.FAILED, S.LOST, S.STOPPED),
    S.SUSPENDED: (S.RESUMING,),
    S.RESUMING: (S.RUNNING, S.SUSPENDED, S.FAILED, S.LOST, S.STOPPED),
    S.MIGRATING: (S.RUNNING, S.PAUSED, S.FAILED, S.LOST, S.STOPPED),
    S.STOPPED: (S.LAUNCHING,),
    S.FAILED: (S.LAUNCHING,),
    S.LOST: (S.RUNNING, S.PAUSED, S.STOPPED, S.FAILED, S.LAUNCHING, S.RESUMING),
}
#: What was to be done to a VM that can't be put into a state, for the message.
_DONE = {
    **dict.fromkeys(S, "changed"),
    S.LAUNCHING: "started",
    S.RUNNING: "resumed",
    S.PAUSED: "paused",
    S.SUSPENDING: "suspended",
    S.RESUMING: "resumed",
    S.MIGRATING: "migrated",
    S.STOPPED: "shut down",
}
_WITHOUT = "came back without it"
#: States in which a client has the VM.
PLACED = (S.LAUNCHING, S.RUNNING, S.PAUSED, S.SUSPENDING, S.RESUMING, S.MIGRATING)
#: States that a VM of the same name may be launched in the place of.
ENDED = (S.STOPPED, S.FAILED, S.LOST)
#: So many VMs that have ended are remembered, the last ones; registered ones always are.
KEPT_ENDED = 100


class Doubt(StrEnum):
    """What was being done with a VM when an agent lost its panel, if the agent can't tell how it
    ended: the VM stands still there until the panel says."""

    NONE = ""
    SUSPENDING = "suspending"  # its state has gone to the panel
    RESTORING = "restoring"  # it is ready to run, from a suspended state
    LEAVING = "leaving"  # all of it has gone to another client
    ARRIVING = "arriving"  # all of it has come from another client


class Fate(Enum):
    """What becomes of a VM that a client has."""

    KEEP = auto()
    GO = auto()  # it was in doubt, and is that client's
    DROP = auto()  # it is somebody else's by now
    WAIT = auto()  # it is in doubt until another client has been heard


class Verdict(NamedTuple):
    """What an agent is to do with VMs that it has, by number."""

    drop: list[int]
    go: list[int]
    wait: list[int]


@dataclass
class Vm:
    """A VM. ``why`` says in a line how it came to where it stands, if that needs saying.

    ``registered``: it is kept with its image, and can be started again. ``has_state``: a whole
    suspended state of it is kept. ``epoch`` grows whenever somebody else is to have it: whoever has
    it of an older epoch has it no longer.
    """

    vm_id: int
    name: str
    client: str
    hypervisor: str = "kvm"
    state: VmState = S.LAUNCHING
    why: str = ""
    memory_bytes: int = 0
    devices: list[dict[str, Any]] = field(default_factory=list)
    registered: bool = False
    has_state: bool = False
    machine: str = ""
    image_name: str = ""
    epoch: int = 1
    #: What ``kvmshim run`` would have exited with, once the VM has ended.
    exit_status: int | None = None

    def shown(self) -> dict[str, Any]:
        """As plain data."""
        return {**{name: getattr(self, name) for name in _SHOWN}, "state": str(self.state)}


_SHOWN = [one.name for one in fields(Vm) if one.name not in ("machine", "image_name")]


@dataclass
class Client:
    """A client platform whose agent is connected, or was, or is to come."""

    client_id: int
    name: str
    hostname: str = ""
    online: bool = False
    #: Each with ``kind``, ``version`` and ``capabilities``.
    hypervisors: list[dict[str, Any]] = field(default_factory=list)

    def kinds(self) -> list[str]:
        """The kinds of its hypervisors."""
        return [str(hypervisor["kind"]) for hypervisor in self.hypervisors]


class Fleet:
    """All clients and VMs of one server."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.vms: dict[int, Vm] = {}

    def load(self, clients: Iterable[dict[str, Any]], vms: Iterable[dict[str, Any]]) -> None:
        """What was known when the server ran last; what VMs do now their clients will say."""
        for row in clients:
            known = (row["client_id"], row["name"], row["hostname"], False, row["hypervisors"])
            self.clients[row["name"]] = Client(*known)
        for row in vms:
            vm = self.add(row)
            if vm.state is S.RESUMING and vm.has_state:
                self._put(vm, S.SUSPENDED)
            elif vm.state in PLACED:
                self._put(vm, S.LOST, f"client '{vm.client}' has not come back yet")

    def add(self, row: dict[str, Any]) -> Vm:
        """A VM of the registry's is this server's."""
        names = {one.name for one in fields(Vm)}
        vm = Vm(**{name: value for name, value in row.items() if name in names})
        vm.state = VmState(vm.state)
        self.vms[vm.vm_id] = vm
        return vm

    # -- clients ------------------------------------------------------------------------------

    def check_name(self, name: str) -> None:
        """Raises :class:`RpcError` if a client of that name is connected."""
        known = self.clients.get(name)
        if known is not None and known.online:
            raise RpcError(
                f"a client named '{name}' is connected already; give one of them another --name"
            )

    def client_came(
        self,
        client_id: int,
        name: str,
        hostname: str,
        hypervisors: list[dict[str, Any]],
        vms: Iterable[dict[str, Any]],
    ) -> Verdict:
        """An agent is there, with these VMs, all of which are known: what it says is true.

        What runs is the truth: a VM is let go only if it is known to be somebody else's by now.
        """
        self.clients[name] = Client(client_id, name, hostname, True, hypervisors)
        here = {vm["vm_id"]: vm for vm in vms}
        for vm in self.vms.values():
            if vm.client == name and vm.vm_id not in here and vm.state in (*PLACED, S.LOST):
                if vm.has_state:  # it was to be resumed there, and was not
                    self._put(vm, S.SUSPENDED)
                elif vm.state is not S.LOST or not vm.why.endswith(_WITHOUT):
                    self._put(vm, S.LOST, f"client '{name}' {_WITHOUT}")
        fates = {vm_id: self._fate(name, vm_id, report) for vm_id, report in here.items()}
        wanted = (Fate.DROP, Fate.GO, Fate.WAIT)
        return Verdict(*([n for n, fate in fates.items() if fate is one] for one in wanted))

    def client_went(self, name: str) -> None:
        """An agent's connection is lost. VMs that migrate are the business of their migration."""
        self.clients[name].online = False
        for vm in self.vms.values():
            if vm.client != name or vm.state not in PLACED or vm.state is S.MIGRATING:
                continue
            if vm.state is S.RESUMING and vm.has_state:
                self._put(vm, S.SUSPENDED)
            else:
                self._put(vm, S.LOST, f"client '{name}' is gone")

    def choose_client(
        self, name: str | None, *, but: Collection[str] = (), kind: str = ""
    ) -> Client:
        """The client to launch on: the named one, or the one with the fewest VMs, none of ``but``.

        ``kind``: of the hypervisor that it must have.
        """
        online = [client for client in self.clients.values() if client.online]
        if name is not None:
            return self._checked(self._named(name, online), kind)
        online = [client for client in online if client.name not in but]
        able = [client for client in online if not kind or kind in client.kinds()]
        if online and not able:
            raise RpcError(f"no client that is connected has a hypervisor '{kind}'")
        if not able:
            other = "other " if but else ""
            raise RpcError(
                f"no {other}client is connected; start 'kvmshim agent --server …' on one"
            )
        return min(able, key=lambda client: len(self._placed_on(client.name)))

    @staticmethod
    def _named(name: str, online: list[Client]) -> Client:
        for client in online:
            if client.name == name:
                return client
        near = get_close_matches(name, [client.name for client in online], 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise RpcError(f"no client named '{name}' is connected{hint}")

    @staticmethod
    def _checked(client: Client, kind: str) -> Client:
        if kind and kind not in client.kinds():
            raise RpcError(f"client '{client.name}' has no hypervisor '{kind}'")
        return client

    def _placed_on(self, name: str) -> list[Vm]:
        return [vm for vm in self.vms.values() if vm.client == name and vm.state in PLACED]

    # -- VMs ----------------------------------------------------------------------------------

    def check_free(self, name: str) -> None:
        """Raises :class:`RpcError` if the name is that of a VM that has not ended."""
        for vm in self.vms.values():
            if vm.name == name and (vm.registered or vm.state not in ENDED):
                start = f"; 'devserver vm start {name}' runs it" if vm.registered else ""
                raise RpcError(
                    f"VM '{name}' is there already: it is {vm.state} on client '{vm.client}'; "
                    f"shut it down first, or choose another name{start}"
                )

    def new_vm(self, vm_id: int, name: str, client: str) -> Vm:
        """A VM that is to be launched, under a name that is free."""
        self.check_free(name)
        ended = [vm for vm in self.vms.values() if vm.state in ENDED and not vm.registered]
        ended.sort(key=attrgetter("vm_id"))
        gone = {vm.vm_id for vm in ended[:-KEPT_ENDED]}
        self.vms = {n: vm for n, vm in self.vms.items() if vm.name != name and n not in gone}
        vm = self.vms[vm_id] = Vm(vm_id, name, client)
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
            raise RpcError(f"VM '{vm.name}' is {vm.state}; it can't be {_DONE[state]}")
        self._put(vm, state, why)

    @staticmethod
    def _put(vm: Vm, state: VmState, why: str = "") -> None:
        vm.state, vm.why = state, why

    def _fate(self, client: str, vm_id: int, report: dict[str, Any]) -> Fate:
        """A client says that it has a VM, or had it: what becomes of that."""
        vm, state = self.vms[vm_id], VmState(report["state"])
        epoch, doubt = int(report.get("epoch", vm.epoch)), Doubt(report.get("doubt", ""))
        if state in ENDED:
            if vm.client == client and epoch >= vm.epoch and vm.state in (*PLACED, S.LOST):
                self._put(vm, state, str(report.get("why", "")))
                vm.exit_status = report.get("exit_status")
            return Fate.KEEP
        if epoch < vm.epoch:
            there = self.is_online(vm.client) and vm.state in PLACED
            waits = doubt is Doubt.LEAVING and vm.client != client and not there
            return Fate.WAIT if waits else Fate.DROP
        if doubt is Doubt.ARRIVING and epoch > vm.epoch:  # it was never to run here
            return Fate.DROP
        elsewhere = vm.client != client and vm.state in PLACED
        unfinished = doubt is Doubt.RESTORING and vm.has_state
        if unfinished or (
            epoch == vm.epoch and (elsewhere or vm.state in (S.SUSPENDED, S.DEFINED))
        ):
            return Fate.DROP
        vm.client, vm.epoch = client, epoch
        vm.hypervisor = str(report.get("hypervisor", vm.hypervisor))
        vm.devices = list(report.get("devices", []))
        vm.memory_bytes = int(report.get("memory_bytes", 0))
        self._put(vm, state)
        return Fate.KEEP if doubt is Doubt.NONE else Fate.GO

    def is_online(self, name: str) -> bool:
        """Whether a client is connected."""
        return name in self.clients and self.clients[name].online
