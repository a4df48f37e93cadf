"""What a bus holds, in the words of the protocol: what a client needs to route accesses."""

from __future__ import annotations

from devserver.machine.bus import Bus
from devserver.machine.policies import LEASED, offsets
from devserver.machine.slot import Mapped, Slot
from devserver.models.registers import Policy
from devserver.protocol.messages import (
    AddressSpace,
    AttachedDevice,
    AttachedRegion,
    PolicyRange,
)


def describe(bus: Bus) -> list[AttachedDevice]:
    """What a client needs to know of the devices that it got."""
    return [describe_slot(bus, slot) for slot in bus.slots.values()]


def describe_slot(bus: Bus, slot: Slot) -> AttachedDevice:
    """What a client needs to know of one of them."""
    regions = [
        AttachedRegion(
            name=mapped.region.name,
            space=AddressSpace(mapped.region.space),
            base=mapped.base,
            size=mapped.region.size,
            policies=policy_ranges(mapped),
        )
        for mapped in bus.mapped()
        if mapped.slot is slot
    ]
    return AttachedDevice(
        device_id=slot.device_id,
        name=slot.wiring.name,
        kind=slot.device.kind,
        version=slot.device.version,
        regions=regions,
        feeds=list(slot.device.feeds),
        emits=list(slot.device.emits),
    )


def policy_ranges(mapped: Mapped) -> list[PolicyRange]:
    """How accesses to the parts of a region may travel, as maximal ranges of each policy."""
    region, policies = mapped.region, mapped.slot.policies
    ranges: list[PolicyRange] = []
    for policy in (Policy.POSTED, Policy.COALESCED):
        chosen = [n for n in offsets(region) if policies.write_policy(region, n) is policy]
        ranges += _ranges(chosen, policy.value)
    leased = [n for n in offsets(region) if policies.may_be_leased(region, n)]
    return ranges + _ranges(leased, LEASED)


def _ranges(chosen: list[int], policy: str) -> list[PolicyRange]:
    ranges: list[PolicyRange] = []
    for offset in chosen:
        last = ranges[-1] if ranges else None
        if last and last.offset + last.length == offset:
            ranges[-1] = PolicyRange(last.offset, last.length + 1, policy)
        else:
            ranges.append(PolicyRange(offset, 1, policy))
    return ranges
