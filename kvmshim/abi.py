"""KVM's system calls by name, and the capabilities that this client looks at.

Source: Documentation/virt/kvm/api.rst of the Linux kernel. Numbers and structures come from the
compiler (``native/cdef/kvm.h``), never from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kvmshim._native import ffi, lib
from kvmshim.errors import KvmError

__all__ = ["CAPABILITIES", "Capability", "call", "call_value", "capability", "ffi", "lib"]


@dataclass(frozen=True)
class Capability:
    """A capability of KVM: what the client does with it, and whether it can do without."""

    name: str
    use: str
    required: bool

    @property
    def number(self) -> int:
        """The argument of KVM_CHECK_EXTENSION."""
        return int(getattr(lib, self.name))


CAPABILITIES: tuple[Capability, ...] = (
    Capability("KVM_CAP_USER_MEMORY", "guest memory", True),
    Capability("KVM_CAP_IMMEDIATE_EXIT", "stopping a guest without losing the request", True),
    Capability("KVM_CAP_IRQCHIP", "the in-kernel interrupt controllers", True),
    Capability("KVM_CAP_MP_STATE", "telling a halted guest from a running one", True),
    Capability("KVM_CAP_EXT_CPUID", "the guest's CPUID leaves", True),
    Capability("KVM_CAP_SET_TSS_ADDR", "real mode on older Intel processors", False),
    Capability("KVM_CAP_SET_IDENTITY_MAP_ADDR", "real mode on older Intel processors", False),
    Capability("KVM_CAP_READONLY_MEM", "ROM images that a guest can't overwrite", False),
    Capability("KVM_CAP_COALESCED_MMIO", "writes to memory that cost no exit", False),
    Capability("KVM_CAP_COALESCED_PIO", "writes to ports that cost no exit", False),
    Capability("KVM_CAP_XSAVE", "saving the vector and floating-point registers", False),
    Capability("KVM_CAP_XCRS", "saving the extended control registers", False),
    Capability("KVM_CAP_DEBUGREGS", "saving the debug registers", False),
    Capability("KVM_CAP_VCPU_EVENTS", "saving interrupts that the processor has accepted", False),
    Capability("KVM_CAP_ADJUST_CLOCK", "saving KVM's own clock", False),
    Capability("KVM_CAP_GET_TSC_KHZ", "saving the speed of the time stamp counter", False),
)


_BY_NAME = {c.name: c for c in CAPABILITIES}


def capability(name: str) -> Capability:
    """The capability of that name; raises KeyError if this client looks at none such."""
    return _BY_NAME[name]


def call(fd: int, name: str, argument: Any, what: str) -> int:
    """The system call ``name`` with a pointer (or NULL); raises :class:`KvmError`."""
    result: int = lib.kvm_ioctl(fd, getattr(lib, name), argument)
    if result < 0:
        raise KvmError(name, ffi.errno, what)
    return result


def call_value(fd: int, name: str, argument: int, what: str) -> int:
    """The system call ``name`` with a number; raises :class:`KvmError`."""
    result: int = lib.kvm_ioctl_value(fd, getattr(lib, name), argument)
    if result < 0:
        raise KvmError(name, ffi.errno, what)
    return result
