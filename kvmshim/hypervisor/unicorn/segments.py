"""Segments: what the engine does not tell of them, and how to load them like a KVM_SET_SREGS.

Source: Intel SDM volume 3, 3.4 (segments and their descriptors) and 20.1.1 (real mode).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kvmshim.hypervisor.kvm.vcpu import CR0_PE
from kvmshim.hypervisor.unicorn.engine import Engine, Register

SEGMENTS: Mapping[str, Register] = {
    "cs": Register.CS,
    "ds": Register.DS,
    "es": Register.ES,
    "fs": Register.FS,
    "gs": Register.GS,
    "ss": Register.SS,
}
DESCRIPTOR_BYTES = 8
#: Where a descriptor lies for the moment in which it is loaded: in any guest's memory.
_SCRATCH = 0x1_0000
_SELECTOR_INDEX = 0xFFF8
_REAL_TYPE = 0x3


class Descriptor(NamedTuple):
    """A code or data segment's."""

    base: int
    limit: int
    #: Bits 8 to 15 of the upper half: type, S, DPL, P.
    access: int
    #: Its size is 32 bits (D/B); its limit counts pages (G).
    wide: bool
    paged: bool

    @classmethod
    def unpack(cls, raw: bytes) -> Descriptor:
        """From the 8 bytes of a descriptor table."""
        value = int.from_bytes(raw, "little")
        return cls(
            base=value >> 16 & 0xFF_FFFF | value >> 56 << 24,
            limit=value & 0xFFFF | value >> 48 & 0xF << 16,
            access=value >> 40 & 0xFF,
            wide=bool(value >> 54 & 1),
            paged=bool(value >> 55 & 1),
        )

    def pack(self) -> bytes:
        """As the 8 bytes of a descriptor table."""
        value = self.limit & 0xFFFF | (self.base & 0xFF_FFFF) << 16 | self.access << 40
        value |= (self.limit >> 16 & 0xF) << 48 | self.wide << 54 | self.paged << 55
        value |= self.base >> 24 << 56
        return value.to_bytes(DESCRIPTOR_BYTES, "little")


def is_protected(engine: Engine) -> bool:
    """Whether the processor is in protected mode."""
    return bool(engine.read(Register.CR0) & CR0_PE)


def descriptor_of(engine: Engine, selector: int) -> Descriptor:
    """What the descriptor table has for a selector now."""
    base, _ = engine.read_table(Register.GDTR)
    raw = engine.read_memory(base + (selector & _SELECTOR_INDEX), DESCRIPTOR_BYTES)
    return Descriptor.unpack(raw)


def base_of(engine: Engine, register: Register) -> int:
    """A segment's base. The engine does not tell it: this is what its selector stands for."""
    selector = engine.read(register)
    if is_protected(engine):
        return descriptor_of(engine, selector).base
    return selector << 4


def is_wide(engine: Engine, register: Register) -> bool:
    """Whether a segment's size is 32 bits."""
    return is_protected(engine) and descriptor_of(engine, engine.read(register)).wide


def load(engine: Engine, sregs: Any) -> None:
    """Loads all segments, and then CR0, as a ``struct kvm_sregs`` has them.

    In protected mode, from a descriptor made for it: a processor keeps what it has loaded, so this
    gives real mode, too, bases that its selectors do not stand for.
    """
    table = engine.read_table(Register.GDTR)
    behind = engine.read_memory(_SCRATCH, DESCRIPTOR_BYTES)
    engine.write(Register.CR0, int(sregs.cr0) | CR0_PE)
    for name, register in SEGMENTS.items():
        segment = getattr(sregs, name)
        protected = bool(sregs.cr0 & CR0_PE)
        if not protected and segment.base == segment.selector << 4:
            continue
        index = segment.selector & _SELECTOR_INDEX
        engine.write_table(Register.GDTR, _SCRATCH - index, 0xFFFF)
        engine.write_memory(_SCRATCH, _descriptor(segment, protected).pack())
        engine.write(register, segment.selector)
    engine.write_memory(_SCRATCH, behind)
    engine.write_table(Register.GDTR, *table)
    engine.write(Register.CR0, int(sregs.cr0))
    if not sregs.cr0 & CR0_PE:
        for name, register in SEGMENTS.items():
            segment = getattr(sregs, name)
            if segment.base == segment.selector << 4:
                engine.write(register, segment.selector)


def _descriptor(segment: Any, protected: bool) -> Descriptor:
    if not protected:
        return Descriptor(int(segment.base), 0xFFFF, 0x90 | _REAL_TYPE | 0x8, False, False)
    limit = int(segment.limit) >> (12 if segment.g else 0)
    access = 0x80 | segment.dpl << 5 | segment.s << 4 | segment.type
    return Descriptor(int(segment.base), limit, int(access), bool(segment.db), bool(segment.g))
