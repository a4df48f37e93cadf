"""A machine's devices: those on servers, those here, and the routes to them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from devserver.machine.board import DeviceWiring
from devserver.plain import PlainError
from devserver.protocol.messages import AttachedDevice, WantedDevice
from kvmshim.abi import ffi, lib
from kvmshim.errors import HostError, InputError
from kvmshim.hypervisor.choose import choose
from kvmshim.machinefile import MachineSpec
from kvmshim.remote.embedded_server import ServerProcess
from kvmshim.remote.handshake import EMBEDDED, Attachment, connect
from kvmshim.remote.link import Link, WaitPolicy
from kvmshim.remote.reattach import VmIdentity, attach_at, attach_everywhere, reattach
from kvmshim.vmm import placement
from kvmshim.vmm.device_move import Destination, Owner, Taken, move_device
from kvmshim.vmm.routes import Routes
from kvmshim.vmstate.state import DetachedDevices, PendingInput

if TYPE_CHECKING:
    from kvmshim.vmm.local import LocalDevices

#: Saved states of devices: place, device name, what Slot.save gave as bytes.
States = Mapping[str, Mapping[str, bytes]]


@dataclasses.dataclass(frozen=True)
class MachineContext:
    """What devices need of their machine."""

    control: Any
    wait: WaitPolicy
    name: str
    vm_id: int
    epoch_ns: int
    set_line: Callable[[int, bool], None]
    server: str | None
    process: ServerProcess | None


class Devices:
    """All devices of one machine."""

    def __init__(self, spec: MachineSpec, around: MachineContext) -> None:
        #: Where each device is; :meth:`move` changes it.
        self.spec = spec
        #: The links to servers, each with the place that it is one of.
        self.links: list[tuple[str, Link]] = []
        self.local: LocalDevices | None = None
        self.routes = Routes(spec.memory_bytes, strict=spec.strict)
        self._around = around

    def attach(
        self,
        by_place: Mapping[str, Sequence[DeviceWiring]],
        states: States,
        detached: Sequence[DetachedDevices] = (),
    ) -> None:
        """Makes the devices, on servers and here, or takes those that wait in ``detached``.

        Raises ServerError and InputError.
        """
        for place, wirings in by_place.items():
            theirs = states.get(place, {})
            if place == placement.LOCAL:
                self.local = self._make_local(wirings, theirs)
            elif not detached:
                for attachment in self._attach(place, wirings, theirs):
                    self._add_link(place, attachment)
        self._reattach(detached, states)
        self._fill(self.routes)

    def leave(self) -> tuple[DetachedDevices, ...]:
        """Leaves what is on servers behind, for the client that the VM goes to.

        The machine is paused. Devices of this process stay where they are.
        """
        time_ns = int(lib.control_time_ns(self._around.control))
        detached = []
        for place, link in self.links:
            attached, where = link.attached, link.where
            names = tuple(device.name for device in attached.devices)
            link.detach(time_ns, keep=bool(names))
            if names:
                name, address = ("", "") if where is None else (where.name, where.address)
                ids = (attached.vm_id, attached.key)
                detached.append(DetachedDevices(place, link.server_id, name, address, *ids, names))
        for _, link in self.links:
            link.wait_until_gone()
            link.close()
        self.links = []
        lib.control_clear(self._around.control, lib.CONTROL_LINK)
        return tuple(detached)

    def come_back(
        self, detached: Sequence[DetachedDevices], states: States, inputs: Sequence[PendingInput]
    ) -> None:
        """Takes what was left behind again; raises ServerError and InputError."""
        time_ns = int(lib.control_time_ns(self._around.control))
        self._hold_lines(True)
        try:
            lib.control_forget_links(self._around.control)
            self._reattach(detached, states)
            for _, link in self.links:
                link.put_back_inputs(inputs, time_ns)
        finally:
            self._hold_lines(False)
            self._renew_routes()

    def owners(self) -> list[tuple[Owner, AttachedDevice]]:
        """Every device with its owner."""
        found: list[tuple[Owner, AttachedDevice]] = []
        for _, link in self.links:
            found += [(link, device) for device in link.attached.devices]
        if self.local is not None:
            found += [(self.local, device) for device in self.local.devices()]
        return found

    def move(self, name: str, to: Destination) -> None:
        """Has a device run somewhere else, as it is, while the machine is paused.

        The routes are new ones afterwards. Raises :class:`InputError` naming what is wrong; then
        the device is where it was.
        """
        source, device = next(((o, d) for o, d in self.owners() if d.name == name), (None, None))
        if source is None or device is None:
            known = ", ".join(d.name for _, d in self.owners())
            raise InputError(f"the machine has no device '{name}' (it has: {known})")
        if to.server_id == getattr(source, "server_id", 0):
            raise InputError(f"device '{name}' is on {to.name} already")
        wiring = next(d.wiring for d in placement.wired(self.spec) if d.wiring.name == name)
        time_ns = int(lib.control_time_ns(self._around.control))
        reach = self._reach_local if to.server_id == 0 else lambda t: self._reach(to, t)
        self._hold_lines(True)
        try:
            move_device(device, wanted_of(wiring), source, reach, time_ns)
        finally:
            self._hold_lines(False)
            self._renew_routes()
        moved = tuple(
            dataclasses.replace(d, placement=to.place) if d.wiring.name == name else d
            for d in self.spec.devices
        )
        self.spec = dataclasses.replace(self.spec, devices=moved)

    def hurry(self) -> None:
        """The machine is to end: a local model that is being called is soon interrupted."""
        if self.local is not None:
            self.local.hurry()

    def close(self) -> None:
        """Ends links and local devices; no vCPU may use the routes any more."""
        for _, link in self.links:
            link.close()
        self.links = []
        if self.local is not None:
            self.local.close()

    def free(self) -> None:
        """Frees the routes."""
        self.routes.close()

    # -- inner workings -----------------------------------------------------------------------

    def _reattach(self, detached: Sequence[DetachedDevices], states: States) -> None:
        wirings = {device.wiring.name: device.wiring for device in placement.wired(self.spec)}
        for left in detached:
            theirs = states.get(left.place, {})
            wanted = [
                wanted_of(wirings[name], state=theirs.get(name, b""))
                for name in left.devices
                if name in wirings
            ]
            owner = placement.address_of(left.place, self.spec, self._around.server)
            self._add_link(left.place, reattach(left, owner, wanted, self._identity()))

    def _renew_routes(self) -> None:
        fresh = Routes(self.spec.memory_bytes, strict=self.spec.strict)
        self._fill(fresh)
        self.routes.close()
        self.routes = fresh

    def _fill(self, routes: Routes) -> None:
        for _, link in self.links:
            routes.add_link(link)
        if self.local is not None:
            routes.add_local(self.local.devices())

    def _make_local(
        self, wirings: Sequence[DeviceWiring], states: Mapping[str, bytes]
    ) -> LocalDevices:
        from kvmshim.vmm.local import LocalDevices  # slow to come by, and not always needed

        around = self._around
        return LocalDevices(
            wirings,
            around.epoch_ns,
            around.control,
            around.set_line,
            states,
            around.wait.model_timeout_s,
        )

    def _add_link(self, place: str, attachment: Attachment) -> Link:
        source = len(self.links) + 1
        link = Link(self._around.control, attachment, self._around.wait, source)
        self.links.append((place, link))
        return link

    def _identity(self) -> VmIdentity:
        around = self._around
        return VmIdentity(
            name=around.name,
            hypervisor=choose(self.spec.hypervisor).identifier,
            memory_bytes=self.spec.memory_bytes,
            epoch_ns=around.epoch_ns,
            leased=not self.spec.strict,
            share=around.wait.share,
            vm_id=around.vm_id,
        )

    def _attach(
        self, place: str, wirings: Sequence[DeviceWiring], states: Mapping[str, bytes]
    ) -> list[Attachment]:
        hosts = {d.wiring.name: placement.host_of(d.placement) for d in self.spec.devices}
        wanted = [wanted_of(w, hosts[w.name], states.get(w.name, b"")) for w in wirings]
        process = self._around.process
        if process is not None and place == placement.SERVER:
            return attach_everywhere(process.sock, EMBEDDED, wanted, self._identity())
        address = placement.address_of(place, self.spec, self._around.server)
        return attach_everywhere(connect(address), address, wanted, self._identity())

    def _hold_lines(self, hold: bool) -> None:
        """While they are held, a line that goes low here and high there makes no edge."""
        if lib.control_hold_lines(self._around.control, hold) < 0:
            raise HostError(f"KVM_IRQ_LINE: {os.strerror(ffi.errno)}")

    def _reach_local(self, taken: Taken) -> Owner:
        if self.local is None:
            self.local = self._make_local((), {})
        self.local.add(taken.wanted, taken.time_ns)
        return self.local

    def _reach(self, to: Destination, taken: Taken) -> Owner:
        for _, link in self.links:
            if link.server_id == to.server_id:
                link.add(taken.wanted, taken.time_ns)
                return link
        first = next((link for place, link in self.links if place == placement.SERVER), None)
        owner = self._around.server
        if owner is None:
            raise InputError("the machine's own server has no other servers")
        vm_id = first.attached.vm_id if first else self._around.vm_id
        vm = dataclasses.replace(self._identity(), vm_id=vm_id)
        attachment = attach_at(to, owner, [taken.wanted], vm, first.client_id if first else 0)
        link = self._add_link(placement.SERVER, attachment)
        link.start()  # another device may follow in this pause
        return link


def wanted_of(wiring: DeviceWiring, host: str = "", state: bytes = b"") -> WantedDevice:
    """A wiring in the protocol's words; raises :class:`InputError` if it is too long for them."""
    try:
        return WantedDevice(
            name=wiring.name,
            kind=wiring.kind,
            bases=dict(wiring.bases),
            lines=dict(wiring.lines),
            options=dict(wiring.options),
            policies=dict(wiring.policies),
            placement=host,
            state=state,
        )
    except PlainError as error:
        raise InputError(f"device '{wiring.name:.40}' can't be asked for: {error}") from None
