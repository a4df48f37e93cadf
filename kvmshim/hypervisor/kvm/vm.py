"""A virtual machine: KVM's VM level."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from devserver.protocol.messages import AddressSpace
from kvmshim import abi
from kvmshim.abi import ffi, lib
from kvmshim.hypervisor.kvm.vcpu import Vcpu
from kvmshim.hypervisor.mapping import MemoryMapping

#: Three pages for KVM's own use below the last MiB of 4 GiB, out of every guest's way
#: (api.rst, KVM_SET_TSS_ADDR and KVM_SET_IDENTITY_MAP_ADDR).
_IDENTITY_MAP_ADDRESS = 0xFEFF_C000
_TSS_ADDRESS = 0xFEFF_D000


class CoalescedRange(NamedTuple):
    """Addresses of one space, port or memory."""

    space: int
    start: int
    length: int


class MemorySlot(NamedTuple):
    """``size`` bytes of memory at a guest-physical address, and where they lie in this process."""

    number: int
    address: int
    size: int
    host_address: int
    read_only: bool


class CoalescedRing(NamedTuple):
    """Where KVM's ring lies in a vCPU's mapping, in bytes, and what goes through it."""

    at: int
    zones: tuple[CoalescedRange, ...]


class SystemFacts(Protocol):
    """What a VM asks its system level; see :class:`kvmshim.hypervisor.kvm.system.System`."""

    def check(self, capability: abi.Capability) -> int: ...

    def vcpu_map_bytes(self) -> int: ...

    def cpuid_rows(self) -> tuple[tuple[int, ...], ...]: ...


class Vm:
    """One VM, made by ``System.create_vm``. Close order: vCPUs, the VM, its memory."""

    def __init__(self, system: SystemFacts, fd: int) -> None:
        self.fd = fd
        self._system = system
        #: Memory as it is mapped.
        self.slots: list[MemorySlot] = []
        self.has_irqchip = False
        self._what = f"VM (descriptor {fd})"
        self.vcpus: list[Vcpu] = []

    def prepare_real_mode(self) -> None:
        """Gives KVM the pages that it needs to run real mode on older Intel processors."""
        checks = {c.name: c for c in abi.CAPABILITIES}
        if self._system.check(checks["KVM_CAP_SET_IDENTITY_MAP_ADDR"]):
            address = ffi.new("uint64_t *", _IDENTITY_MAP_ADDRESS)
            abi.call(self.fd, "KVM_SET_IDENTITY_MAP_ADDR", address, self._what)
        if self._system.check(checks["KVM_CAP_SET_TSS_ADDR"]):
            abi.call_value(self.fd, "KVM_SET_TSS_ADDR", _TSS_ADDRESS, self._what)

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: two 8259A, an I/O APIC and local APICs, in the kernel."""
        abi.call_value(self.fd, "KVM_CREATE_IRQCHIP", 0, self._what)
        self.has_irqchip = True

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
        mapped_bytes = memory.size - offset if size is None else size
        number = len(self.slots)
        slot = MemorySlot(number, address, mapped_bytes, memory.address + offset, read_only)
        self._set_region(slot, lib.KVM_MEM_READONLY if read_only else 0)
        self.slots.append(slot)

    def log_dirty(self, slot: MemorySlot, on: bool) -> None:
        """Has KVM keep a log of the pages of a slot that are written to; also while it runs."""
        self._set_region(slot, lib.KVM_MEM_LOG_DIRTY_PAGES if on else 0)

    def dirty_bitmap(self, slot: MemorySlot) -> bytes:
        """KVM_GET_DIRTY_LOG: the pages of a slot that were written to since the last call.

        A bit for each page, the lowest of the first byte first.
        """
        words = -(-slot.size // (mmap.PAGESIZE * 64))
        bitmap = ffi.new("uint64_t[]", words)
        log = ffi.new("struct kvm_dirty_log *", {"slot": slot.number})
        log.dirty_bitmap = bitmap
        abi.call(self.fd, "KVM_GET_DIRTY_LOG", log, self._what)
        return bytes(ffi.buffer(bitmap))

    def _set_region(self, slot: MemorySlot, flags: int) -> None:
        region = ffi.new("struct kvm_userspace_memory_region *")
        region.slot, region.flags = slot.number, flags
        region.guest_phys_addr, region.memory_size = slot.address, slot.size
        region.userspace_addr = slot.host_address
        abi.call(self.fd, "KVM_SET_USER_MEMORY_REGION", region, self._what)

    def set_line(self, line: int, level: bool) -> None:
        """KVM_IRQ_LINE: drives an interrupt line of the in-kernel controllers."""
        argument = ffi.new("struct kvm_irq_level *", {"irq": line, "level": int(level)})
        abi.call(self.fd, "KVM_IRQ_LINE", argument, self._what)

    def coalesce(self, zones: Iterable[CoalescedRange]) -> CoalescedRing | None:
        """Lets KVM take writes to these places without an exit, as far as it can.

        None if KVM takes none: then they are exits as others are (api.rst,
        KVM_REGISTER_COALESCED_MMIO).
        """
        checks = {c.name: c for c in abi.CAPABILITIES}
        page = self._system.check(checks["KVM_CAP_COALESCED_MMIO"])
        ports = self._system.check(checks["KVM_CAP_COALESCED_PIO"])
        taken = [z for z in zones if page and (ports or z.space == AddressSpace.MEMORY)]
        for zone in taken:
            argument = ffi.new("struct kvm_coalesced_mmio_zone *")
            argument.addr, argument.size = zone.start, zone.length
            argument.pio = int(zone.space == AddressSpace.PORT)
            abi.call(self.fd, "KVM_REGISTER_COALESCED_MMIO", argument, self._what)
        return CoalescedRing(page * mmap.PAGESIZE, tuple(taken)) if taken else None

    def uncoalesce(self, place: CoalescedRing | None) -> None:
        """Has writes to these places be exits again (KVM_UNREGISTER_COALESCED_MMIO)."""
        for zone in place.zones if place is not None else ():
            argument = ffi.new("struct kvm_coalesced_mmio_zone *")
            argument.addr, argument.size = zone.start, zone.length
            argument.pio = int(zone.space == AddressSpace.PORT)
            abi.call(self.fd, "KVM_UNREGISTER_COALESCED_MMIO", argument, self._what)

    def create_vcpu(self, cpuid: tuple[tuple[int, ...], ...] | None = None) -> Vcpu:
        """KVM_CREATE_VCPU, with a CPUID table or with all leaves that KVM supports."""
        number = len(self.vcpus)
        fd = abi.call_value(self.fd, "KVM_CREATE_VCPU", number, self._what)
        vcpu = Vcpu(fd, number, self._system.vcpu_map_bytes())
        vcpu.set_cpuid(self._system.cpuid_rows() if cpuid is None else cpuid)
        self.vcpus.append(vcpu)
        return vcpu

    def close(self) -> None:
        """Closes the vCPUs and the VM."""
        for vcpu in self.vcpus:
            vcpu.close()
        self.vcpus = []
        if self.fd >= 0:
            lib.kvm_close(self.fd)
            self.fd = -1
