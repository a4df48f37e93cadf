"""What a machine needs of a hypervisor, of whatever kind.

KVM's levels (system, VM and vCPU in ``kvmshim.hypervisor.kvm``) are one implementation,
``kvmshim.hypervisor.unicorn`` is another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from devserver.protocol.messages import Hypervisor
from kvmshim.hypervisor.kvm.vcpu import Registers
from kvmshim.hypervisor.kvm.vm import CoalescedRange, CoalescedRing
from kvmshim.hypervisor.mapping import MemoryMapping

#: Serves the ``struct vcpu_access`` that a guest has made to a device in this process.
ServeLocal = Callable[[Any], None]


class Vcpu(Protocol):
    """A virtual CPU. What it does belongs to the thread that runs it.

    ``handle`` is the ``struct vcpu`` (native/src/vcpu/vcpu.h) of the present run.
    """

    @property
    def fd(self) -> int:
        """KVM's descriptor; -1 without KVM."""

    @property
    def run_page(self) -> Any:
        """The ``struct kvm_run *`` by which other threads stop it."""

    def run(self, handle: Any, serve_local: ServeLocal) -> int:
        """Runs the guest until it is to be left; one of ``enum vcpu_exit``."""

    def settle(self, handle: Any, serve_local: ServeLocal) -> int:
        """After VCPU_PAUSED: to an instruction boundary; VCPU_PAUSED, or what else came."""

    def complete(self, handle: Any) -> None:
        """Has the processor see the access that was served last, so that registers are right."""

    def get_regs(self) -> Any:
        """A ``struct kvm_regs *``."""

    def set_regs(self, regs: Any) -> None:
        """Takes one."""

    def get_sregs(self) -> Any:
        """A ``struct kvm_sregs *``."""

    def set_sregs(self, sregs: Any) -> None:
        """Takes one."""

    def registers(self) -> Registers:
        """A readable copy of the registers."""

    def explain(self, detail: int, instruction: str, in_long_mode: bool) -> str:
        """What VCPU_INTERNAL with this detail, at an instruction, means for people."""


class Vm(Protocol):
    """One virtual machine, and its vCPUs."""

    @property
    def fd(self) -> int:
        """KVM's descriptor; -1 without KVM."""

    def prepare_real_mode(self) -> None:
        """What is to be done before there is a vCPU."""

    def create_irqchip(self) -> None:
        """Makes the interrupt controllers that the hypervisor has itself."""

    def map_memory(
        self,
        address: int,
        memory: MemoryMapping,
        offset: int = 0,
        size: int | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        """Puts ``size`` bytes of ``memory`` at guest-physical ``address``."""

    def coalesce(self, zones: Iterable[CoalescedRange]) -> CoalescedRing | None:
        """Lets the hypervisor take writes to these places by itself; None if it takes none."""

    def uncoalesce(self, place: CoalescedRing | None) -> None:
        """Has writes to these places be exits again."""

    def create_vcpu(self, cpuid: tuple[tuple[int, ...], ...] | None = None) -> Vcpu:
        """A vCPU, with a CPUID table or with what the hypervisor offers."""

    def close(self) -> None:
        """Ends the VM; its memory may be freed afterwards."""


class Host(Protocol):
    """An opened hypervisor."""

    def require(self) -> None:
        """Raises HostError naming what it lacks."""

    def require_rom(self) -> None:
        """Raises HostError if it can't have memory that a guest can't write to."""

    def create_vm(self) -> Vm:
        """A VM."""

    def close(self) -> None:
        """Gives back what it holds; VMs made from it go on."""


class Kind(NamedTuple):
    """A kind of hypervisor: its name in machine files, its number in the protocol.

    ``notice`` is what someone who runs a guest on it is told, if there is anything. ``open``
    raises HostError if it can't be had here.
    """

    name: str
    identifier: Hypervisor
    notice: str
    open: Callable[[], Host]
