"""The code at which a guest's processor stands, for people: its bytes, and what they mean.

Source of the page tables: Intel SDM volume 3, 4.3 to 4.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

from kvmshim.hypervisor.kvm.vcpu import Registers

#: No instruction is longer.
INSTRUCTION_BYTES = 15
_CR0_PG, _CR4_PSE, _CR4_PAE, _EFER_LMA = 1 << 31, 1 << 4, 1 << 5, 1 << 10
_PRESENT, _LARGE = 1 << 0, 1 << 7
_PAGE_SHIFT = 12
_ADDRESS_BITS = 0x000F_FFFF_FFFF_F000

#: What the guest sees at a physical address, so many bytes or fewer.
ReadPhysical = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Code:
    """What lies at CS:IP: ``data`` is empty where there is no memory.

    ``size`` is the length of the first instruction and ``text`` what it means; 0 and empty if the
    package capstone is not installed, or it is none.
    """

    address: int  # linear
    data: bytes
    size: int = 0
    text: str = ""

    @property
    def instruction(self) -> str:
        """The instruction's bytes, or all of them, and its meaning."""
        shown = self.data[: self.size] if self.size else self.data
        text = f" ({self.text})" if self.text else ""
        return f"{shown.hex(' ')}{text}"

    def line(self) -> str:
        """One line for people."""
        if not self.data:
            return f"code at {self.address:#x}: there is no memory"
        if not any(self.data):
            return f"code at {self.address:#x}: zeros; nothing was loaded there"
        return f"code at {self.address:#x}: {self.instruction}"


class _Paging(NamedTuple):
    """A way of paging: which bits of an address each level looks at, and which may end there."""

    entry_bytes: int
    root: int
    shifts: tuple[int, ...]
    large: tuple[int, ...]


def _paging(registers: Registers) -> _Paging:
    if not registers.cr4 & _CR4_PAE:
        large = (22,) if registers.cr4 & _CR4_PSE else ()
        return _Paging(4, 0xFFFF_F000, (22, 12), large)
    if not registers.efer & _EFER_LMA:
        return _Paging(8, 0xFFFF_FFE0, (30, 21, 12), (21,))
    return _Paging(8, _ADDRESS_BITS, (39, 30, 21, 12), (30, 21))


def read_code(registers: Registers, read: ReadPhysical) -> Code:
    """The code at which a processor with these registers stands."""
    linear = registers.bases["cs"] + registers.general["rip"]
    if registers.code_bits < 64:
        linear &= 0xFFFF_FFFF
    data = b""
    while len(data) < INSTRUCTION_BYTES:  # the pages that it lies in may be anywhere
        at = linear + len(data)
        physical = _physical_address(at, registers, read)
        if physical is None:
            break
        in_page = (1 << _PAGE_SHIFT) - (at & (1 << _PAGE_SHIFT) - 1)
        part = read(physical, min(in_page, INSTRUCTION_BYTES - len(data)))
        if not part:
            break
        data += part
    return Code(linear, data, *_disassembled(data, linear, registers))


def _disassembled(data: bytes, linear: int, registers: Registers) -> tuple[int, str]:
    try:
        capstone = import_module("capstone")
    except ImportError:
        return 0, ""
    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    machine = capstone.Cs(capstone.CS_ARCH_X86, mode[registers.code_bits])
    address = linear if registers.code_bits > 16 else registers.general["rip"]
    for _, size, name, operands in machine.disasm_lite(data, address, 1):
        return int(size), f"{name} {operands}".strip()
    return 0, ""


def _physical_address(linear: int, registers: Registers, read: ReadPhysical) -> int | None:
    """Where a linear address is; None if it is nowhere."""
    if not registers.cr0 & _CR0_PG:
        return linear
    paging = _paging(registers)
    table = registers.cr3 & paging.root
    for shift in paging.shifts:
        index = linear >> shift & (1 << _PAGE_SHIFT) // paging.entry_bytes - 1
        raw = read(table + index * paging.entry_bytes, paging.entry_bytes)
        entry = int.from_bytes(raw, "little")
        if len(raw) < paging.entry_bytes or not entry & _PRESENT:
            return None
        table = entry & _ADDRESS_BITS
        if shift in paging.large and entry & _LARGE:
            offset = linear & (1 << shift) - 1
            return table & ~((1 << shift) - 1) | offset
    return table | linear & (1 << _PAGE_SHIFT) - 1
