"""All of a vCPU's state, taken out and put back.

Source: Documentation/virt/kvm/api.rst; the order of putting back follows what the calls depend on.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kvmshim import abi
from kvmshim.abi import ffi
from kvmshim.errors import HostError, KvmError
from kvmshim.hypervisor.kvm.system import System
from kvmshim.hypervisor.kvm.vcpu import Vcpu
from kvmshim.vmstate.cpuid import missing_features
from kvmshim.vmstate.state import CpuState, DamagedState

_WHAT = "vCPU 0"
_MSR_TSC = 0x10
_MSR_TSC_DEADLINE = 0x6E0
_TSC_KHZ = "KVM_CAP_GET_TSC_KHZ"


class _Structure(NamedTuple):
    """A structure of KVM's, named without ``kvm_``; its calls end in the name that they have."""

    name: str
    call: str
    capability: str | None


#: SREGS before what depends on the processor's mode and on the local APIC's address.
_BEFORE_MSRS = (
    _Structure("sregs", "SREGS", None),
    _Structure("regs", "REGS", None),
    _Structure("fpu", "FPU", None),
    _Structure("xsave", "XSAVE", "KVM_CAP_XSAVE"),
    _Structure("xcrs", "XCRS", "KVM_CAP_XCRS"),
    _Structure("debugregs", "DEBUGREGS", "KVM_CAP_DEBUGREGS"),
    _Structure("lapic_state", "LAPIC", "KVM_CAP_IRQCHIP"),
)
#: What the processor is about to accept comes last: other calls may drop it.
_AFTER_MSRS = (_Structure("vcpu_events", "VCPU_EVENTS", "KVM_CAP_VCPU_EVENTS"),)
_STRUCTURES = {s.name: s for s in (*_BEFORE_MSRS, *_AFTER_MSRS)}


def save_cpu(vcpu: Vcpu, system: System, *, has_apic: bool) -> CpuState:
    """The state of a vCPU that has left the guest. Raises :class:`KvmError`.

    ``has_apic``: whether its local APIC is in the kernel.
    """
    mp_state = vcpu.get_mp_state()  # first: KVM acts on what the local APIC has for it
    structures = {}
    for structure in _wanted(system, has_apic=has_apic):
        held = ffi.new(f"struct kvm_{structure.name} *")
        abi.call(vcpu.fd, f"KVM_GET_{structure.call}", held, _WHAT)
        structures[structure.name] = bytes(ffi.buffer(held))
    if "xsave" in structures:
        del structures["fpu"]  # it is a part of the other
    return CpuState(
        structures=structures,
        msrs=_save_msrs(vcpu, system),
        cpuid=vcpu.cpuid,
        mp_state=mp_state,
        tsc_khz=_tsc_khz(vcpu, system),
    )


def load_cpu(vcpu: Vcpu, system: System, state: CpuState) -> None:
    """Puts a state into a fresh vCPU that has the state's CPUID table.

    Raises :class:`KvmError`, :class:`HostError` or :class:`DamagedState`.
    """
    here_khz = _tsc_khz(vcpu, system)
    if state.tsc_khz and here_khz and state.tsc_khz != here_khz:
        _set_tsc_khz(vcpu, state.tsc_khz)
    for structure in _BEFORE_MSRS:
        _load_structure(vcpu, state, structure)
    _load_msrs(vcpu, state.msrs)
    vcpu.set_mp_state(state.mp_state)
    for structure in _AFTER_MSRS:
        _load_structure(vcpu, state, structure)


def needs_of_cpu(state: CpuState) -> list[str]:
    """The capabilities without which this state can't be put back."""
    return _needs(_STRUCTURES[name] for name in state.structures if name in _STRUCTURES)


def needs_of(system: System, *, has_apic: bool) -> list[str]:
    """The same for what a vCPU on this host will be saved as."""
    return _needs(_wanted(system, has_apic=has_apic))


def _needs(structures: Iterable[_Structure]) -> list[str]:
    named = [structure.capability for structure in structures]
    return [name for name in named if name is not None] + ["KVM_CAP_MP_STATE", "KVM_CAP_EXT_CPUID"]


def _wanted(system: System, *, has_apic: bool) -> Iterator[_Structure]:
    for structure in _STRUCTURES.values():
        name = structure.capability
        if (name is None or system.check(abi.capability(name))) and (
            has_apic or structure.name != "lapic_state"
        ):
            yield structure


def check_features(system: System, state: CpuState) -> None:
    """Raises :class:`HostError` naming the processor features that this host lacks."""
    absent = missing_features(state.cpuid, system.cpuid_rows())
    if absent:
        some = ", ".join(absent[:8]) + (" and more" if len(absent) > 8 else "")
        raise HostError(
            f"the machine was promised processor features that this host lacks: {some}; resume it "
            f"on a host with a processor like its own"
        )


def _load_structure(vcpu: Vcpu, state: CpuState, structure: _Structure) -> None:
    content = state.structures.get(structure.name)
    if content is None:
        return
    held = ffi.new(f"struct kvm_{structure.name} *")
    if len(content) != ffi.sizeof(held[0]):
        raise DamagedState(f"the state of the processor ({structure.name}) is damaged")
    ffi.buffer(held)[:] = content
    abi.call(vcpu.fd, f"KVM_SET_{structure.call}", held, _WHAT)


# -- model-specific registers ---------------------------------------------------------------------


def _one_msr(number: int, value: int = 0) -> Any:
    msrs = ffi.new("struct kvm_msrs *", {"entries": 1})
    msrs.nmsrs = 1
    msrs.entries[0].index, msrs.entries[0].data = number, value
    return msrs


def _read_msr(vcpu: Vcpu, number: int) -> int | None:
    """None if it can't be read: KVM lists some that a configuration of the VM forbids."""
    msrs = _one_msr(number)
    return int(msrs.entries[0].data) if abi.call(vcpu.fd, "KVM_GET_MSRS", msrs, _WHAT) else None


def _save_msrs(vcpu: Vcpu, system: System) -> dict[int, int]:
    values = {number: _read_msr(vcpu, number) for number in system.msr_numbers()}
    return {number: value for number, value in values.items() if value is not None}


def _load_msrs(vcpu: Vcpu, values: dict[int, int]) -> None:
    """The TSC goes before the deadline that is compared with it."""
    for number in sorted(values, key=lambda n: (n == _MSR_TSC_DEADLINE, n != _MSR_TSC)):
        value = values[number]
        if not abi.call(vcpu.fd, "KVM_SET_MSRS", _one_msr(number, value), _WHAT):
            here = _read_msr(vcpu, number)
            if here != value and (here is not None or value):
                raise HostError(
                    f"the machine's register MSR {number:#x} has the value {value:#x}, which KVM "
                    f"on this host does not take"
                )


# -- the time stamp counter's speed -----------------------------------------------------------


def _tsc_khz(vcpu: Vcpu, system: System) -> int:
    if not system.check(abi.capability(_TSC_KHZ)):
        return 0
    try:
        return abi.call_value(vcpu.fd, "KVM_GET_TSC_KHZ", 0, _WHAT)
    except KvmError as error:
        if error.errno == errno.EIO:  # "unstable TSC"
            return 0
        raise


def _set_tsc_khz(vcpu: Vcpu, khz: int) -> None:
    """Where the processor can't scale the counter it goes on with this host's speed."""
    try:
        abi.call_value(vcpu.fd, "KVM_SET_TSC_KHZ", khz, _WHAT)
    except KvmError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
