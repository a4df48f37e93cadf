"""What a VM has in the kernel beside its vCPUs: interrupt controllers, and KVM's clock.

Source: Documentation/virt/kvm/api.rst, KVM_GET_IRQCHIP and KVM_GET_CLOCK.
"""

from __future__ import annotations

from kvmshim import abi
from kvmshim.abi import ffi, lib
from kvmshim.hypervisor.kvm.system import System
from kvmshim.hypervisor.kvm.vm import Vm
from kvmshim.vmstate.state import ChipState, DamagedState

_WHAT = "the VM"
_CONTROLLERS = {
    "pic master": lib.KVM_IRQCHIP_PIC_MASTER,
    "pic slave": lib.KVM_IRQCHIP_PIC_SLAVE,
    "ioapic": lib.KVM_IRQCHIP_IOAPIC,
}
_CLOCK = "KVM_CAP_ADJUST_CLOCK"


def save_chips(vm: Vm, system: System) -> ChipState:
    """The state of what this VM has. Raises :class:`KvmError`."""
    controllers = {}
    for name, number in _CONTROLLERS.items() if vm.has_irqchip else ():
        chip = ffi.new("struct kvm_irqchip *", {"chip_id": number})
        abi.call(vm.fd, "KVM_GET_IRQCHIP", chip, _WHAT)
        controllers[name] = bytes(ffi.buffer(chip.chip.dummy))
    clock_ns = None
    if system.check(abi.capability(_CLOCK)):
        clock = ffi.new("struct kvm_clock_data *")
        abi.call(vm.fd, "KVM_GET_CLOCK", clock, _WHAT)
        clock_ns = int(clock.clock)
    return ChipState(controllers, clock_ns)


def load_chips(vm: Vm, system: System, state: ChipState) -> None:
    """Puts it into a fresh VM whose interrupt lines have the levels that they had.

    Raises :class:`KvmError` or :class:`DamagedState`.
    """
    for name, content in state.controllers.items():
        chip = ffi.new("struct kvm_irqchip *")
        if name not in _CONTROLLERS or len(content) != len(chip.chip.dummy):
            raise DamagedState(f"the state of an interrupt controller '{name}' is damaged")
        chip.chip_id = _CONTROLLERS[name]
        chip.chip.dummy = content
        abi.call(vm.fd, "KVM_SET_IRQCHIP", chip, _WHAT)
    if state.clock_ns is not None and system.check(abi.capability(_CLOCK)):
        clock = ffi.new("struct kvm_clock_data *", {"clock": state.clock_ns})
        abi.call(vm.fd, "KVM_SET_CLOCK", clock, _WHAT)


def needs_of_chips(state: ChipState) -> list[str]:
    """The capabilities without which this state can't be put back."""
    return ["KVM_CAP_IRQCHIP"] if state.controllers else []
