"""A virtual machine on the Unicorn engine: its address space, and the one vCPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kvmshim.abi import ffi, lib
from kvmshim.hypervisor.kvm.vm import CoalescedRange, CoalescedRing
from kvmshim.hypervisor.mapping import MemoryMapping
from kvmshim.hypervisor.unicorn.engine import Access, Engine, Hook, Instruction
from kvmshim.hypervisor.unicorn.vcpu import UnicornVcpu

_ADDRESS_SPACE_BYTES = 1 << 32


class _Range(NamedTuple):
    start: int
    size: int


class UnicornVm:
    """One VM."""

    fd = -1

    def __init__(self) -> None:
        self._engine = Engine()
        self._emulated = ffi.new("struct emulated *")
        self._windows: list[Any] = []
        self._memory: list[_Range] = []
        self._vcpu: UnicornVcpu | None = None

    def prepare_real_mode(self) -> None:
        """The engine needs nothing for it."""

    def create_irqchip(self) -> None:
        """The engine has no interrupt controllers."""

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
        mapped = _Range(address, memory.size - offset if size is None else size)
        access = Access.READ | Access.EXEC | (Access(0) if read_only else Access.WRITE)
        self._engine.map_memory(address, memory.address + offset, mapped.size, access)
        self._memory.append(mapped)

    def coalesce(self, zones: Iterable[CoalescedRange]) -> CoalescedRing | None:
        """None: every write of the guest is served when it is made."""
        del zones
        return None

    def uncoalesce(self, place: CoalescedRing | None) -> None:
        """There is no ring."""

    def create_vcpu(self, cpuid: tuple[tuple[int, ...], ...] | None = None) -> UnicornVcpu:
        """The vCPU; what has no memory by now belongs to devices. It has the engine's CPUID."""
        del cpuid
        self._bind()
        for gap in self._gaps():
            self._open_window(gap)
        self._vcpu = UnicornVcpu(self._engine, self._emulated)
        return self._vcpu

    def close(self) -> None:
        """Ends the vCPU and the engine; memory may be freed afterwards."""
        if self._vcpu is not None:
            self._vcpu.close()
            self._vcpu = None
        self._engine.close()

    # -- what the engine calls ------------------------------------------------------------------

    def _bind(self) -> None:
        """Has the engine call us."""
        hook, emulated = self._engine.hook, self._emulated
        emulated.serve_local = lib.emulated_serve_local
        hook(Hook.CODE, "emulated_step", emulated)
        hook(Hook.INTERRUPT, "emulated_trap", emulated)
        hook(Hook.INSTRUCTION, "emulated_in", emulated, Instruction.IN)
        hook(Hook.INSTRUCTION, "emulated_out", emulated, Instruction.OUT)
        hook(Hook.WRITE_PROTECTED, "emulated_write_rom", emulated)

    def _open_window(self, gap: _Range) -> None:
        window = ffi.new("struct emulated_window *", {"start": gap.start})
        window.emulated = self._emulated
        self._windows.append(window)  # keeps it alive
        self._engine.map_window(gap.start, gap.size, "emulated_read", "emulated_write", window)

    def _gaps(self) -> Iterator[_Range]:
        end = 0
        for part in [*sorted(self._memory), _Range(_ADDRESS_SPACE_BYTES, 0)]:
            if part.start > end:
                yield _Range(end, part.start - end)
            end = part.start + part.size
