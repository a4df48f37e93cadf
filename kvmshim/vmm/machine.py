"""A machine: memory, a vCPU, and devices on servers or here; from power-on to its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from devserver.protocol.messages import AttachedDevice
from kvmshim.abi import ffi, lib
from kvmshim.errors import HostError, InputError, MisuseError
from kvmshim.hypervisor.choose import choose as choose_hypervisor
from kvmshim.hypervisor.guest_memory import GuestMemory, rom_of
from kvmshim.hypervisor.interface import Host
from kvmshim.hypervisor.kvm.system import System
from kvmshim.hypervisor.kvm.vm import CoalescedRing
from kvmshim.loader import BootPlan
from kvmshim.machinefile import MachineSpec
from kvmshim.remote.embedded_server import ServerProcess
from kvmshim.remote.link import Link, WaitPolicy
from kvmshim.vmm import capture, placement
from kvmshim.vmm.cores import Cores, choose
from kvmshim.vmm.device_move import Destination
from kvmshim.vmm.devices import Devices, MachineContext
from kvmshim.vmm.disk import write_disk_back
from kvmshim.vmm.outcome import Outcome, RunResult
from kvmshim.vmm.run import OutputHandler, Parts, Progress, Run
from kvmshim.vmm.screen import read_screen
from kvmshim.vmm.stage import OPEN, Stage, expect
from kvmshim.vmm.view import View
from kvmshim.vmstate.describe import describe, plan_of, spec_of
from kvmshim.vmstate.kinds import check_host
from kvmshim.vmstate.memory import DirtyLog, PageRun, blocks
from kvmshim.vmstate.migrate_in import MigrateIn
from kvmshim.vmstate.state import Block, DetachedDevices, Header, MachineDescription, MachineState

if TYPE_CHECKING:
    from kvmshim.vmm.local import LocalDevices


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
        state: MachineState | MigrateIn | None = None,
        vm_id: int = 0,
    ) -> None:
        """``server`` is the address of the server that devices are placed on by default; None
        starts one of this VM's own, to which ``models`` (Python files) and those of ``spec`` are
        known. ``process``: one that was started before, taken over. ``vm_id``: the VM's already.
        ``state``: what the machine begins with, instead of what ``plan`` says; see
        :meth:`restored`."""
        self.spec = spec = spec.with_controllers()
        self.plan = plan
        self._server = server
        self._models = tuple(dict.fromkeys((*models, *spec.models)))
        self._wait = wait or WaitPolicy()
        self._name = name or plan.name
        self._state = state
        self._vm_id = vm_id
        self._epoch_ns = time.time_ns() if state is None else state.header.epoch_ns
        self._kind = choose_hypervisor(spec.hypervisor)
        #: What someone who runs it should be told of its hypervisor; empty if there is nothing.
        self.notice = self._kind.notice
        self._system: Host | None = None
        self._memory: GuestMemory | None = None
        self._vm: Any = None
        self._vcpu: Any = None
        self._control: Any = ffi.NULL
        self._ring: CoalescedRing | None = None
        self._devices: Devices | None = None
        self._process = process
        self.cores = Cores()
        self._progress = Progress()
        self._stage = Stage.NEW

    @classmethod
    def restored(
        cls,
        state: MachineState | MigrateIn,
        *,
        server: str | None = None,
        models: Sequence[str] = (),
        wait: WaitPolicy | None = None,
        process: ServerProcess | None = None,
        vm_id: int = 0,
    ) -> Self:
        """The machine that was in this state, to be entered and run as any other.

        It goes on where it stood. Entering it raises what entering any machine does, and
        :class:`InputError` if the state is damaged, :class:`HostError` naming what this host lacks.
        """
        machine = state.header.machine
        return cls(
            spec_of(machine),
            plan_of(machine),
            server=server,
            models=models,
            wait=wait,
            process=process,
            name=machine.name,
            state=state,
            vm_id=vm_id,
        )

    # -- set-up and tear-down -----------------------------------------------------------------

    def __enter__(self) -> Self:
        expect(self._stage, "is entered once", Stage.NEW)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self._stage = Stage.READY
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
            self._process = ServerProcess(self._models, self._wait.mode, self._wait.model_timeout_s)
        placement.load_models(self._models if placement.LOCAL in by_place else ())
        self._system = self._kind.open()
        self._system.require()
        if self._state is not None:
            check_host(self._state.header, self._system)
        self._vm = self._system.create_vm()
        self._vm.prepare_real_mode()
        if self.spec.has_kernel_irqchip:
            self._vm.create_irqchip()
        self._memory = GuestMemory(self._vm, self._system, self.spec.memory_bytes, self.plan)
        self._control = lib.control_new(self._vm.fd)
        if self._control == ffi.NULL:
            raise HostError(f"can't set up the VM: {os.strerror(ffi.errno)}")
        if not self.spec.has_kernel_irqchip:
            lib.control_userspace_irqchip(self._control)
        if self._state is not None:
            capture.load_memory(self._memory, self._state.memory)
            # The final header arrives with the memory; check the host against it again.
            check_host(self._state.header, self._system)
            lib.control_clock_set(self._control, self._state.header.time_ns)
        self._devices = self._make_devices()
        states = {} if self._state is None else self._state.header.devices
        self._devices.attach(by_place, states, () if self._state is None else self._state.detached)
        self._ring = self._vm.coalesce(self._devices.routes.coalesced())
        self._vcpu = self._vm.create_vcpu(self._state and self._state.header.cpu.cpuid)
        if self._state is not None:
            capture.load_vm(self._opened(), self._state.header)
            self._progress = capture.progress_of(self._state.header, self.console())
        self.cores = choose(self._wait.cores, self._wait.mode, embedded=self._process is not None)
        if self._process is not None:
            self.cores.bind_server(self._process.pid)

    def _make_devices(self) -> Devices:
        around = MachineContext(
            control=self._control,
            wait=self._wait,
            name=self._name,
            vm_id=self._vm_id,
            epoch_ns=self._epoch_ns,
            set_line=self._set_line,
            server=self._server,
            process=self._process,
        )
        return Devices(self.spec, around)

    def _set_line(self, line: int, level: bool) -> None:
        if lib.control_line(self._control, 0, line, level) < 0:
            raise HostError(f"KVM_IRQ_LINE, line {line}: {os.strerror(ffi.errno)}")

    def close(self) -> None:
        """Ends everything: links, local devices, vCPU, VM, memory, the embedded server."""
        self._stage = Stage.CLOSED
        if self._devices is not None:
            self._devices.close()
        if self._vm is not None:
            self._vm.close()
            self._vm = None
        if self._devices is not None:
            self._devices.free()
            self._devices = None
        if self._control != ffi.NULL:
            lib.control_free(self._control)
            self._control = ffi.NULL
        if self._memory is not None:
            self._memory.close()
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
        """Runs the guest to its end, or until it is paused; then it may be called again.

        ``input_fd`` is read for the console device's input; ``on_input`` sees it first, and may
        change it or return None to stop the guest. ``output`` gets what devices send out.
        ``trace_exits``: record when the first so many port exits were, in the result's ``trace``.
        """
        expect(self._stage, "runs", Stage.READY)
        assert self._devices is not None
        assert self._memory is not None
        parts = Parts(
            control=self._control,
            vcpu=self._vcpu,
            routes=self._devices.routes,
            start=self.plan.start,
            links=[link for _, link in self._devices.links],
            local=self._devices.local,
            ring=self._ring,
            cores=self.cores,
            progress=self._progress,
            read_physical=self._memory.visible,
        )
        run = Run(parts, self.devices(), timeout_s, input_fd, output, on_input)
        run.trace_exits(trace_exits)
        self._stage = Stage.RUNNING
        try:
            result = run.run()
        finally:
            if self._stage is Stage.RUNNING:  # nobody has closed it meanwhile
                self._stage = Stage.READY if self._progress.paused else Stage.ENDED
        if result.outcome is not Outcome.PAUSED:
            self._keep_disk()
        screen = tuple(read_screen(self._memory, self.plan)) if self._memory else ()
        return replace(result, guess=self.plan.guess, screen=screen)

    def _keep_disk(self) -> None:
        """What the guest wrote to its disk goes into the image, if that was asked for."""
        image = self.spec.image
        if image is not None and image.disk_writes and self.plan.disk_image is not None:
            assert self._memory is not None
            write_disk_back(image.path, self._memory, self.plan)

    def feed(self, device: str, data: bytes, *, end: bool = False) -> None:
        """Gives bytes from the world to the first input channel of a device.

        Raises :class:`InputError` if there is no such device, or none that takes input.
        """
        expect(self._stage, "is fed", Stage.READY, Stage.RUNNING)
        owner, attached = placement.taker_of(device, self.devices())
        owner.feed(attached.device_id, 0, data, self.time_ns(), end=end)

    def devices(self) -> list[tuple[Link | LocalDevices, AttachedDevice]]:
        """Every device of the machine with its owner."""
        return [] if self._devices is None else self._devices.owners()

    def move_device(self, name: str, to: Destination) -> None:
        """Has a device's model run somewhere else from now on, as it is.

        :meth:`run` must have returned with the outcome ``PAUSED``; it goes on with the next run.
        Raises :class:`InputError`, :class:`ServerError`; then the device is where it was.
        """
        expect(self._stage, "has its devices moved", Stage.READY)
        if not self._progress.paused or self._devices is None:
            raise MisuseError("a device is moved after its machine's run was paused")
        self._vm.uncoalesce(self._ring)
        try:
            self._devices.move(name, to)
        finally:
            self._ring = self._vm.coalesce(self._devices.routes.coalesced())
            self.spec = self._devices.spec

    def time_ns(self) -> int:
        """VM time: how long the guest has run, without the time that it was paused."""
        expect(self._stage, "has a time", *OPEN)
        return int(lib.control_time_ns(self._control))

    def console(self) -> str | None:
        """The name of the device that the terminal's input goes to, if the machine has one."""
        found = placement.console_of([device for _, device in self.devices()])
        return found.name if found else None

    def pause(self) -> None:
        """Pauses a running guest; callable from another thread.

        :meth:`run` returns with the outcome ``PAUSED`` once the guest is between two instructions,
        all that it did has reached its devices, and VM time stands still. One that comes before
        :meth:`run` has it return so at once.
        """
        expect(self._stage, "is paused", *OPEN)
        lib.control_raise(self._control, lib.CONTROL_PAUSE)

    def save(self) -> MachineState:
        """The machine's state; :meth:`run` must have returned with the outcome ``PAUSED``.

        It may be run on afterwards. Raises :class:`KvmshimError`.
        """
        memory = tuple(self.memory(None))
        return MachineState(self.save_header(), memory)

    def save_header(self) -> Header:
        """The same without memory, for one who takes that with :meth:`memory`."""
        expect(self._stage, "is saved", Stage.READY)
        if not self._progress.paused:
            raise MisuseError("a machine is saved after its run was paused")
        return capture.save_header(self._opened(), self._description(), self._epoch_ns)

    def _description(self) -> MachineDescription:
        return describe(self.spec, self._name, rom_of(self.plan))

    def preliminary_header(self) -> Header:
        """What can be said of the machine's state while it runs: what the machine is and needs."""
        expect(self._stage, "has a preliminary_header", *OPEN)
        return capture.preliminary_header(self._opened(), self._description(), self._epoch_ns)

    def leave_devices(self) -> tuple[DetachedDevices, ...]:
        """Leaves the devices on servers where they are, for a machine that goes on elsewhere.

        To be called after :meth:`save_header`. Nothing runs here afterwards but
        :meth:`come_back`.
        """
        expect(self._stage, "leaves its devices", Stage.READY)
        assert self._devices is not None
        self._vm.uncoalesce(self._ring)
        self._ring = None
        return self._devices.leave()

    def come_back(self, header: Header, detached: Sequence[DetachedDevices]) -> None:
        """Undoes :meth:`leave_devices`; raises :class:`ServerError` if that can't be."""
        expect(self._stage, "comes back", Stage.READY)
        assert self._devices is not None
        self._devices.come_back(detached, header.devices, header.inputs)
        self._ring = self._vm.coalesce(self._devices.routes.coalesced())

    def memory(self, runs: Iterable[PageRun] | None) -> Iterator[Block]:
        """What these pages hold, zeros too; all but zeros, if ``runs`` is None. At any time."""
        expect(self._stage, "has memory", *OPEN)
        assert self._memory is not None
        if runs is None:
            return capture.all_memory(self._memory)
        return blocks(self._memory, runs, zeros=True)

    def view(self) -> View:
        """For one who looks into it, from entering its block to leaving it."""
        expect(self._stage, "is looked into", *OPEN)
        assert self._memory is not None
        return View(self._memory, self.devices())

    def dirty_log(self) -> DirtyLog:
        """A log of the pages that the guest writes to, for one who copies memory while it runs."""
        expect(self._stage, "has a dirty log", *OPEN)
        if not isinstance(self._system, System):
            raise InputError(
                f"a machine on the hypervisor '{self._kind.name}' can't migrate while it runs; "
                "suspend it instead"
            )
        return DirtyLog(self._vm)

    def _opened(self) -> capture.Opened:
        assert self._memory is not None
        assert self._devices is not None
        assert self._system is not None
        return capture.Opened(
            self._system,
            self._vm,
            self._vcpu,
            self._memory,
            self._control,
            self._devices.links,
            self._devices.local,
            self._progress.halted,
        )

    def stop(self) -> None:
        """Stops a running guest; callable from another thread."""
        if self._stage is Stage.CLOSED:  # somebody was quicker
            return
        expect(self._stage, "is stopped", *OPEN)
        lib.control_raise(self._control, lib.CONTROL_STOP)
        if self._devices is not None:
            self._devices.hurry()

    @property
    def is_stopping(self) -> bool:
        """Whether its guest is to stop, or was: by :meth:`stop`, or as its time is over."""
        return self._control == ffi.NULL or bool(
            lib.control_pending(self._control) & lib.CONTROL_STOP
        )

    @property
    def is_cut_off(self) -> bool:
        """Whether a server of its is lost, so that a run of it would end at once."""
        return bool(lib.control_pending(self._control) & lib.CONTROL_LINK)
