"""Puts a vCPU into the state that a boot plan asks for."""

from __future__ import annotations

from typing import Any

from kvmshim.hypervisor.interface import Vcpu
from kvmshim.hypervisor.kvm.vcpu import CR0_PE, FLAGS_RESERVED
from kvmshim.loader.lowmemory import CODE_SELECTOR, DATA_SELECTOR, GDT_BYTES
from kvmshim.loader.plan import CpuStart, LongStart, ProtectedStart, RealStart
from kvmshim.loader.registers import apply

_DATA_SEGMENTS = ("ds", "es", "fs", "gs", "ss")
# Segment types (Intel SDM vol. 3, 3.4.5.1): code, execute/read, accessed; data, read/write.
_CODE, _DATA = 0xB, 0x3
# Control registers (Intel SDM vol. 3, 2.5, and 2.2.1): protection, paging, and SSE as compiled
# 64-bit code uses it without asking.
_CR0_LONG = 0x8000_0033  # PG, NE, ET, MP, PE; caches on
_CR4_LONG = 0x0000_0620  # OSXMMEXCPT, OSFXSR, PAE
_EFER_LONG = 0x0000_0500  # LMA, LME


def apply_start(vcpu: Vcpu, start: CpuStart) -> None:
    """Sets all registers of a fresh vCPU."""
    sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
    regs.rflags = FLAGS_RESERVED
    if isinstance(start, ProtectedStart):
        _flat(sregs, long_mode=False)
        _load_table(sregs, start.gdt)
        regs.rip, regs.rax, regs.rbx = start.eip, start.eax, start.ebx
        regs.rsp = start.esp
    elif isinstance(start, LongStart):
        _flat(sregs, long_mode=True)
        _load_table(sregs, start.gdt)
        sregs.cr0, sregs.cr3, sregs.cr4 = _CR0_LONG, start.cr3, _CR4_LONG
        sregs.efer = _EFER_LONG
        regs.rip, regs.rsp = start.rip, start.rsp
    else:
        _real(sregs, start)
        regs.rip, regs.rsp, regs.rdx = start.ip, start.sp, start.edx
    apply(start.registers, regs, sregs)
    vcpu.set_sregs(sregs)
    vcpu.set_regs(regs)


def _real(sregs: Any, start: RealStart) -> None:
    sregs.cs.selector, sregs.cs.base = start.cs_selector, start.cs_base
    for name in _DATA_SEGMENTS:
        segment = getattr(sregs, name)
        segment.selector, segment.base = 0, 0


def _load_table(sregs: Any, gdt: int | None) -> None:
    if gdt is not None:
        sregs.gdt.base, sregs.gdt.limit = gdt, GDT_BYTES - 1


def _flat(sregs: Any, *, long_mode: bool) -> None:
    sregs.cr0 |= CR0_PE
    for name in ("cs", *_DATA_SEGMENTS):
        code = name == "cs"
        segment = getattr(sregs, name)
        segment.base, segment.limit = 0, 0xFFFF_FFFF
        segment.selector = CODE_SELECTOR if code else DATA_SELECTOR
        segment.type = _CODE if code else _DATA
        segment.present = segment.s = segment.g = 1
        segment.l = int(long_mode and code)
        segment.db = 1 - segment.l
        segment.dpl = segment.unusable = 0
