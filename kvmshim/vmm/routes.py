"""Which accesses of the guest go where: the route table that the vCPU loop looks at."""

from __future__ import annotations

from typing import Any

from devserver.protocol.messages import AddressSpace, AttachedDevice, AttachedRegion
from kvmshim.abi import ffi, lib
from kvmshim.errors import InputError
from kvmshim.hypervisor.kvm.vm import CoalescedRange
from kvmshim.remote.link import Link

_PORTS = 0x10000
#: Policies of writes that do not wait (docs/protocol.md, PolicyRange).
COALESCED = "coalesced"
_POSTED = ("posted", COALESCED)
_WHAT = {
    AddressSpace.PORT: "port",
    AddressSpace.MEMORY: "memory address",
    AddressSpace.BUS: "bus address",
}


class Routes:
    """Ports and memory ranges to devices; what nobody claims reads all-ones."""

    def __init__(self, ram_bytes: int, *, strict: bool = False) -> None:
        """``ram_bytes``: RAM lies from 0 to there, and no device can lie in it. ``strict``: every
        access waits for its answer, whatever the server allows."""
        self._ram_bytes = ram_bytes
        self._strict = strict
        self.handle = lib.routes_new()
        if self.handle == ffi.NULL:
            raise MemoryError("no memory for the route table")
        self._links: list[Link] = []
        self._coalesced: list[CoalescedRange] = []
        self._claims: list[tuple[int, int, int, str]] = []

    def add_link(self, link: Link) -> None:
        """Routes the accesses of the link's devices to its server."""
        number = len(self._links)
        if number == lib.ROUTE_LINKS:
            raise InputError(f"a machine can have devices on at most {number} servers")
        self._links.append(link)
        self.handle.links[number] = link.handle
        for device in link.attached.devices:
            self._add(device, lib.ROUTE_REMOTE, number, link.leases)

    def add_local(self, devices: list[AttachedDevice]) -> None:
        """Routes the accesses of these devices to this process."""
        for device in devices:
            self._add(device, lib.ROUTE_LOCAL, 0, ffi.NULL)

    def close(self) -> None:
        """Frees the table; no vCPU may use it any more."""
        lib.routes_free(self.handle)
        self.handle = ffi.NULL

    def coalesced(self) -> list[CoalescedRange]:
        """Where KVM may take writes without an exit of the guest."""
        return list(self._coalesced)

    def _add(self, device: AttachedDevice, kind: int, link: int, leases: Any) -> None:
        lane = 0
        for region in device.regions:
            self._claim(device, region)
            entry = ffi.new("struct route_entry *")
            entry.kind, entry.link, entry.device_id = kind, link, device.device_id
            entry.region = len(self._claims)
            entry.lane_0 = (region.base - lane) % (1 << 64)
            entry.leases = lib.leases_of(leases, device.device_id)
            self._fill(region, 0, region.size, self._entry(entry))
            lane += region.size
            for policy in region.policies:
                if kind == lib.ROUTE_REMOTE and not self._strict and policy.policy in _POSTED:
                    entry.posted = 1
                    self._fill(region, policy.offset, policy.length, self._entry(entry))
                    if policy.policy == COALESCED:
                        start = region.base + policy.offset
                        self._coalesced.append(CoalescedRange(region.space, start, policy.length))

    def _claim(self, device: AttachedDevice, region: AttachedRegion) -> None:
        start, end = region.base, region.base + region.size
        if region.space == AddressSpace.PORT and end > _PORTS:
            raise InputError(f"device '{device.name}' claims ports up to {end - 1:#x}")
        if region.space == AddressSpace.MEMORY and start < self._ram_bytes:
            raise InputError(
                f"device '{device.name}' claims memory from {start:#x}, where the machine has RAM "
                f"(up to {self._ram_bytes:#x}); place it above"
            )
        for space, other_start, other_end, name in self._claims:
            if space == region.space and start < other_end and other_start < end:
                what = _WHAT[AddressSpace(space)]
                raise InputError(
                    f"devices '{name}' and '{device.name}' both claim {what} "
                    f"{max(start, other_start):#x}; move one of them"
                )
        self._claims.append((region.space, start, end, device.name))

    def _entry(self, entry: Any) -> int:
        index: int = lib.routes_entry(self.handle, entry)
        if index < 0:
            raise InputError("the machine has more devices than the route table has room for")
        return index

    def _fill(self, region: AttachedRegion, offset: int, length: int, entry: int) -> None:
        if region.space == AddressSpace.PORT:
            for port in range(region.base + offset, region.base + offset + length):
                self.handle.port[port] = entry
        elif region.space == AddressSpace.BUS:
            for address in range(region.base + offset, region.base + offset + length):
                self.handle.bus[address] = entry
        elif lib.routes_add_range(self.handle, region.base + offset, length, entry) < 0:
            raise InputError(
                "the machine has more memory regions than the route table has room for"
            )
