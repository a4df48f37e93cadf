"""A machine: memory, a vCPU, and devices on servers or here; from power-on to its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from devserver.board import DeviceWiring
from devserver.plain import PlainError
from devserver.protocol.messages import AttachedDevice, Hypervisor, WantedDevice
from kvmshim import placement
from kvmshim.abi import ffi, lib
from kvmshim.cores import Cores, choose
from kvmshim.elsewhere import VmIdentity, attach_everywhere
from kvmshim.errors import HostError, InputError
from kvmshim.handshake import Attachment, connect
from kvmshim.link import Link, WaitPolicy
from kvmshim.loader import BootPlan
from kvmshim.local import LocalDevices
from kvmshim.machinefile import MachineSpec
from kvmshim.outcome import RunResult
from kvmshim.physical import PhysicalMemory
from kvmshim.routes import Routes
from kvmshim.run import OutputHandler, Parts, Run
from kvmshim.server_process import ServerProcess
from kvmshim.system import System
from kvmshim.vm import RingPlace, Vm


class Machine:
    """One VM with its devices.

    ``with Machine(...) as machine: result = machine.run()``. Entering it connects the servers and
    opens KVM; leaving it ends everything that it started. Raises :class:`HostError`,
    :class:`ServerError`, :class:`InputError`, :class:`KvmError`.
    """

    def __init__(
        self,
        spec: MachineSpec,
        plan: BootPlan,
        *,
        server: str | None = None,
        models: Sequence[str] = (),
        wait: WaitPolicy | None = None,
        process: ServerProcess | None = None,
        name: str = "",
    ) -> None:
        """``server`` is the address of the server that devices are placed on by default; None
        starts one of this VM's own, to which ``models`` (Python files) are made known.
        ``process`` is such a one that was started before, to save time; it is taken over."""
        self.spec = spec
        self.plan = plan
        self._server = server
        self._models = tuple(models)
        self._wait = wait or WaitPolicy()
        self._name = name or plan.name
        self._system: System | None = None
        self._physical: PhysicalMemory | None = None
        self._vm: Any = None
        self._vcpu: Any = None
        self._control: Any = ffi.NULL
        self._ring: RingPlace | None = None
        self._routes: Routes | None = None
        self._process = process
        self._links: list[Link] = []
        self.cores = Cores()
        self._local: LocalDevices | None = None

    # -- set-up and tear-down -----------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        by_place = placement.group(self.spec)
        if placement.SERVER in by_place and self._server is None and self._process is None:
            # Before any VM is open: a child must not inherit one.
            self._process = ServerProcess(self._models, self._wait.mode)
        placement.load_models(self._models, by_place)
        self._system = System()
        self._system.require()
        self._vm = Vm.create(self._system)
        self._vm.prepare_real_mode()
        self._vm.create_irqchip()
        self._physical = PhysicalMemory(self._vm, self._system, self.spec.memory_bytes, self.plan)
        self._control = lib.control_new(self._vm.fd)
        if self._control == ffi.NULL:
            raise HostError(f"can't set up the VM: {os.strerror(ffi.errno)}")
        self._attach_devices(by_place)
        if self._routes is not None:
            self._ring = self._vm.coalesce(self._routes.coalesced())
        self._vcpu = self._vm.create_vcpu()
        self.cores = choose(self._wait.cores, self._wait.mode, embedded=self._process is not None)
        if self._process is not None:
            self.cores.bind_server(self._process.pid)

    def _attach_devices(self, by_place: dict[str, list[DeviceWiring]]) -> None:
        epoch_ns = time.time_ns()
        self._routes = Routes(self.spec.memory_bytes, strict=self.spec.strict)
        for place, wirings in by_place.items():
            if place == placement.LOCAL:
                self._local = LocalDevices(wirings, epoch_ns, self._control, self._set_line)
                self._routes.add_local(self._local.devices())
            else:
                for attachment in self._attach(place, wirings, epoch_ns):
                    link = Link(self._control, attachment, self._wait)
                    self._links.append(link)
                    self._routes.add_link(link)

    def _set_line(self, line: int, level: bool) -> None:
        self._vm.set_line(line, level)
        lib.control_stir(self._control)

    def _attach(
        self, place: str, wirings: Sequence[DeviceWiring], epoch_ns: int
    ) -> list[Attachment]:
        hosts = {d.wiring.name: placement.host_of(d.placement) for d in self.spec.devices}
        wanted = [_wanted(wiring, hosts[wiring.name]) for wiring in wirings]
        embedded = self._process is not None and place == placement.SERVER
        if embedded and self._process is not None:
            sock, address = self._process.sock, "(embedded)"
        else:
            address = placement.address_of(place, self.spec, self._server)
            sock = connect(address)
        identity = VmIdentity(
            name=self._name,
            hypervisor=Hypervisor.KVM,
            memory_bytes=self.spec.memory_bytes,
            epoch_ns=epoch_ns,
            leased=not self.spec.strict,
        )
        return attach_everywhere(sock, address, wanted, identity)

    def close(self) -> None:
        """Ends everything: links, local devices, vCPU, VM, memory, the embedded server."""
        for link in self._links:
            link.close()
        self._links = []
        if self._local is not None:
            self._local.close()
        if self._vm is not None:
            self._vm.close()
            self._vm = None
        if self._routes is not None:
            self._routes.close()
            self._routes = None
        if self._control != ffi.NULL:
            lib.control_free(self._control)
            self._control = ffi.NULL
        if self._physical is not None:
            self._physical.close()
        if self._system is not None:
            self._system.close()
        if self._process is not None:
            self._process.close()
            self._process = None

    # -- running ------------------------------------------------------------------------------

    def run(
        self,
        *,
        timeout_s: float | None = None,
        input_fd: int | None = None,
        output: OutputHandler | None = None,
        on_input: Callable[[bytes], bytes | None] | None = None,
        trace_exits: int = 0,
    ) -> RunResult:
        """Runs the guest to its end.

        ``input_fd`` is read for the console device's input; ``on_input`` sees it first, and may
        change it or return None to stop the guest. ``output`` gets what devices send out.
        ``trace_exits``: record when the first so many port exits were, in the result's ``trace``.
        """
        if self._routes is None:
            raise RuntimeError("a machine runs inside its 'with' block")
        parts = Parts(
            control=self._control,
            vcpu=self._vcpu,
            routes=self._routes,
            start=self.plan.start,
            links=self._links,
            local=self._local,
            ring=self._ring,
            cores=self.cores,
        )
        run = Run(parts, self.devices(), timeout_s, input_fd, output, on_input)
        run.trace_exits(trace_exits)
        return run.run()

    def feed(self, device: str, data: bytes, *, end: bool = False) -> None:
        """Gives bytes from the world to the first input channel of a device."""
        owner, attached = self.device(device)
        now_ns = lib.control_time_ns(self._control)
        owner.feed(attached.device_id, 0, data, now_ns, end=end)

    def device(self, name: str) -> tuple[Link | LocalDevices, AttachedDevice]:
        """Where a device is, and what it has; raises KeyError."""
        for owner, attached in self.devices():
            if attached.name == name:
                return owner, attached
        raise KeyError(f"the machine has no device '{name}'")

    def devices(self) -> list[tuple[Link | LocalDevices, AttachedDevice]]:
        """Every device of the machine with its owner."""
        found: list[tuple[Link | LocalDevices, AttachedDevice]] = []
        for link in self._links:
            found += [(link, device) for device in link.attached.devices]
        if self._local is not None:
            found += [(self._local, device) for device in self._local.devices()]
        return found

    def console(self) -> str | None:
        """The name of the device that the terminal's input goes to, if the machine has one."""
        found = placement.console_of([device for _, device in self.devices()])
        return found.name if found else None

    def stop(self) -> None:
        """Stops a running guest; callable from another thread."""
        lib.control_raise(self._control, lib.CONTROL_STOP)


def _wanted(wiring: DeviceWiring, host: str) -> WantedDevice:
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
        )
    except PlainError as error:
        raise InputError(f"device '{wiring.name:.40}' can't be asked for: {error}") from None
