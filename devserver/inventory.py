"""What a backplane holds, in the words of the protocol: what a client needs to route accesses."""

from __future__ import annotations

from devserver.backplane import Backplane
from devserver.models.registers import Policy, Region
from devserver.protocol.messages import (
    AddressSpace,
    AttachedDevice,
    AttachedRegion,
    PolicyRange,
)


def describe(backplane: Backplane) -> list[AttachedDevice]:
    """What a client needs to know of the devices that it got."""
    regions: dict[int, list[AttachedRegion]] = {device_id: [] for device_id in backplane.slots}
    for mapped in backplane.mapped():
        regions[mapped.slot.device_id].append(
            AttachedRegion(
                name=mapped.region.name,
                space=AddressSpace(mapped.region.space),
                base=mapped.base,
                size=mapped.region.size,
                policies=posted_ranges(mapped.region),
            )
        )
    return [
        AttachedDevice(
            device_id=device_id,
            name=slot.wiring.name,
            kind=slot.device.kind,
            version=slot.device.version,
            regions=regions[device_id],
            feeds=list(slot.device.feeds),
            emits=list(slot.device.emits),
        )
        for device_id, slot in backplane.slots.items()
    ]


def posted_ranges(region: Region) -> list[PolicyRange]:
    """The parts of a region whose writes may be posted, as maximal ranges."""
    ranges: list[PolicyRange] = []
    for offset in sorted({r.offset + i for r in region.registers for i in range(r.width)}):
        if region.write_policy(offset) is not Policy.POSTED:
            continue
        last = ranges[-1] if ranges else None
        if last and last.offset + last.length == offset:
            ranges[-1] = PolicyRange(last.offset, last.length + 1, last.policy)
        else:
            ranges.append(PolicyRange(offset, 1, Policy.POSTED.value))
    return ranges
