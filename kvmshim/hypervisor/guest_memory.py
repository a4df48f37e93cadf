"""The guest's physical address space: RAM, and ROM that shadows parts of it."""

from __future__ import annotations

from typing import NamedTuple

from kvmshim.bundled import bios_image
from kvmshim.hypervisor.interface import Host, Vm
from kvmshim.hypervisor.mapping import MemoryMapping
from kvmshim.loader import BootPlan, Rom, informed_bios
from kvmshim.loader.plan import FOUR_GIB

_ONE_MIB = 1 << 20


def rom_of(plan: BootPlan) -> Rom | None:
    """The machine's ROM: the image's, or the bundled BIOS, which stays read-only everywhere."""
    if not plan.bios:
        return plan.rom
    assert plan.information is not None
    return Rom(informed_bios(bios_image(), plan.information))


class Part(NamedTuple):
    """A piece of the address space, from ``address`` on."""

    address: int
    memory: MemoryMapping

    @property
    def size(self) -> int:
        """Bytes."""
        return self.memory.size


class GuestMemory:
    """RAM from 0 with the plan's segments in it, and the plan's ROM or the BIOS."""

    def __init__(self, vm: Vm, host: Host, memory_bytes: int, plan: BootPlan) -> None:
        self.ram = MemoryMapping(memory_bytes)
        self.rom: MemoryMapping | None = None
        self._low_rom = range(0)  # where the ROM hides RAM
        rom = rom_of(plan)
        try:
            if rom is None or rom.shadowed:
                vm.map_memory(0, self.ram)
            else:
                self._map_around(vm, rom)
            if rom is not None:
                self._map_rom(vm, host, rom)
        except BaseException:
            self.close()
            raise
        for segment in plan.memory():
            self.ram.write(segment.address, segment.data)

    def _map_around(self, vm: Vm, rom: Rom) -> None:
        vm.map_memory(0, self.ram, 0, min(rom.low_address, self.ram.size))
        if self.ram.size > _ONE_MIB:
            vm.map_memory(_ONE_MIB, self.ram, _ONE_MIB)

    def _map_rom(self, vm: Vm, host: Host, rom: Rom) -> None:
        host.require_rom()
        self.rom = MemoryMapping(len(rom.data))
        self.rom.write(0, rom.data)
        vm.map_memory(rom.address, self.rom, read_only=True)
        if rom.shadowed:
            self.ram.write(rom.low_address, rom.low_data)
            return
        low_offset = len(rom.data) - len(rom.low_data)
        vm.map_memory(rom.low_address, self.rom, low_offset, read_only=True)
        self._low_rom = range(rom.low_address, _ONE_MIB)

    def parts(self) -> list[Part]:
        """What there is to save: RAM, shadow memory and what a ROM hides included, and the ROM."""
        found = [Part(0, self.ram)]
        if self.rom is not None:
            found.append(Part(FOUR_GIB - self.rom.size, self.rom))
        return found

    def read(self, address: int, length: int) -> bytes:
        """Copies bytes out of one part; raises ValueError outside."""
        part = self._part_at(address)
        return part.memory.read(address - part.address, length)

    def visible(self, address: int, length: int) -> bytes:
        """What the guest sees there, as far as there is memory: ROM goes before RAM."""
        if address in self._low_rom:
            address += FOUR_GIB - _ONE_MIB
        for part in self.parts():
            if part.address <= address < part.address + part.size:
                start = address - part.address
                return part.memory.read(start, min(length, part.size - start))
        return b""

    def write(self, address: int, data: bytes) -> None:
        """Copies bytes into one part, ROM or not; raises ValueError outside."""
        part = self._part_at(address)
        part.memory.write(address - part.address, data)

    def _part_at(self, address: int) -> Part:
        for part in self.parts():
            if part.address <= address < part.address + part.size:
                return part
        raise ValueError(f"the machine has no memory at {address:#x}")

    def close(self) -> None:
        """Unmaps it all; the VM must be closed before."""
        self.ram.close()
        if self.rom is not None:
            self.rom.close()
