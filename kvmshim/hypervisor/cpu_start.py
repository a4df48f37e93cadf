"""Puts a vCPU into the state that a boot plan asks for."""

from __future__ import annotations

from typing import Any

from kvmshim.hypervisor.interface import Vcpu
from kvmshim.hypervisor.kvm.vcpu import CR0_PE, FLAGS_RESERVED
from kvmshim.loader.plan import CpuStart, ProtectedStart, RealStart

_DATA_SEGMENTS = ("ds", "es", "fs", "gs", "ss")
# Segment types (Intel SDM vol. 3, 3.4.5.1): code, execute/read, accessed; data, read/write.
_CODE, _DATA = 0xB, 0x3
_FLAT_CODE_SELECTOR, _FLAT_DATA_SELECTOR = 0x08, 0x10


def apply_start(vcpu: Vcpu, start: CpuStart) -> None:
    """Sets all registers of a fresh vCPU."""
    sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
    regs.rflags = FLAGS_RESERVED
    if isinstance(start, ProtectedStart):
        _flat(sregs)
        regs.rip, regs.rax, regs.rbx = start.eip, start.eax, start.ebx
    else:
        _real(sregs, start)
        regs.rip, regs.rsp, regs.rdx = start.ip, start.sp, start.edx
    vcpu.set_sregs(sregs)
    vcpu.set_regs(regs)


def _real(sregs: Any, start: RealStart) -> None:
    sregs.cs.selector, sregs.cs.base = start.cs_selector, start.cs_base
    for name in _DATA_SEGMENTS:
        segment = getattr(sregs, name)
        segment.selector, segment.base = 0, 0


def _flat(sregs: Any) -> None:
    sregs.cr0 |= CR0_PE
    for name in ("cs", *_DATA_SEGMENTS):
        code = name == "cs"
        segment = getattr(sregs, name)
        segment.base, segment.limit = 0, 0xFFFF_FFFF
        segment.selector = _FLAT_CODE_SELECTOR if code else _FLAT_DATA_SELECTOR
        segment.type = _CODE if code else _DATA
        segment.present = segment.s = segment.db = segment.g = 1
        segment.dpl = segment.l = segment.unusable = 0
