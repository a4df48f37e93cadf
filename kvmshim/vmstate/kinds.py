"""What a machine's state has of its hypervisor: one kind's is of no use to another."""

from __future__ import annotations

from dataclasses import replace

from kvmshim import abi
from kvmshim.abi import lib
from kvmshim.errors import HostError
from kvmshim.hypervisor.interface import Host, Vcpu, Vm
from kvmshim.hypervisor.kvm.system import System
from kvmshim.hypervisor.kvm.vcpu import Vcpu as KvmVcpu
from kvmshim.hypervisor.kvm.vm import Vm as KvmVm
from kvmshim.vmstate import chips, cpu, emulated
from kvmshim.vmstate.state import ChipState, CpuState, Header

#: KVM_GET_MP_STATE (api.rst).
_RUNNABLE, _HALTED = int(lib.KVM_MP_STATE_RUNNABLE), int(lib.KVM_MP_STATE_HALTED)


def save_processor(
    host: Host, vm: Vm, vcpu: Vcpu, *, halted: bool
) -> tuple[CpuState, ChipState, set[str]]:
    """The vCPU, the hypervisor's own controllers, and what they need of a host.

    ``halted``: the guest has executed HLT, and the hypervisor does not know.
    """
    if not isinstance(vcpu, KvmVcpu):
        state = CpuState(emulated.save(vcpu), {}, (), _RUNNABLE, 0)
        return _marked(state, halted), ChipState(), {emulated.need()}
    assert isinstance(host, System)
    assert isinstance(vm, KvmVm)
    saved = _marked(cpu.save_cpu(vcpu, host, has_apic=vm.has_irqchip), halted)
    saved_chips = chips.save_chips(vm, host)
    return saved, saved_chips, {*cpu.needs_of_cpu(saved), *chips.needs_of_chips(saved_chips)}


def expected(host: Host, vm: Vm, vcpu: Vcpu) -> tuple[CpuState, set[str]]:
    """The same as far as it is known while the machine runs: its CPUID and its needs."""
    if not isinstance(vcpu, KvmVcpu):
        return CpuState({}, {}, (), 0, 0), {emulated.need()}
    assert isinstance(host, System)
    assert isinstance(vm, KvmVm)
    needs = {*cpu.needs_of(host, has_apic=vm.has_irqchip)}
    if vm.has_irqchip:
        needs.add("KVM_CAP_IRQCHIP")
    return CpuState({}, {}, vcpu.cpuid, 0, 0), needs


def load_processor(host: Host, vm: Vm, vcpu: Vcpu, header: Header) -> None:
    """Puts it back. Raises :class:`KvmshimError`."""
    if not isinstance(vcpu, KvmVcpu):
        emulated.load(vcpu, header.cpu.structures)
        return
    assert isinstance(host, System)
    assert isinstance(vm, KvmVm)
    chips.load_chips(vm, host, header.chips)
    saved = header.cpu
    if not vm.has_irqchip:  # then KVM knows of no other state
        saved = replace(saved, mp_state=_RUNNABLE)
    cpu.load_cpu(vcpu, host, saved)


def was_halted(header: Header) -> bool:
    """What ``halted`` was when it was saved."""
    return not header.chips.controllers and header.cpu.mp_state == _HALTED


def check_host(header: Header, host: Host) -> None:
    """Raises :class:`HostError` naming what this host lacks to go on with the machine."""
    if not isinstance(host, System):
        emulated.check_needs(header.needs)
        return
    absent = []
    for name in header.needs:
        try:
            capability = abi.capability(name)
        except KeyError:
            absent.append(f"{name}, which this client does not know")
            continue
        if not host.check(capability):
            absent.append(f"{name} ({capability.use})")
    if absent:
        raise HostError(f"the machine needs what KVM on this host lacks: {', '.join(absent)}")
    cpu.check_features(host, header.cpu)


def _marked(state: CpuState, halted: bool) -> CpuState:
    return replace(state, mp_state=_HALTED) if halted else state
