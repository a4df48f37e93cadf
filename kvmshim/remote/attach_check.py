"""Whether a server gave what it was asked for: what routes are made of must be sound."""

from __future__ import annotations

from collections.abc import Sequence

from devserver.protocol.messages import (
    AddressSpace,
    AttachedDevice,
    AttachedRegion,
    Elsewhere,
    WantedDevice,
)
from kvmshim.errors import ServerError

#: One past the last address of each space.
_ENDS = {AddressSpace.PORT: 1 << 16, AddressSpace.MEMORY: 1 << 64, AddressSpace.BUS: 32}
#: FEED and EMIT number channels in one byte.
_MAX_CHANNELS = 256


def check_attached(
    server: str,
    wanted: Sequence[WantedDevice],
    given: Sequence[AttachedDevice],
    elsewhere: Sequence[Elsewhere] = (),
) -> None:
    """Raises :class:`ServerError` unless ``given`` is what was ``wanted``, in its order.

    Devices that are ``elsewhere`` are not to be among them.
    """
    names = [name for other in elsewhere for name in other.devices]
    here = [device for device in wanted if device.name not in names]
    problem = _problem(here, given)
    if len(here) + len(names) != len(wanted):
        problem = "devices elsewhere that are not this machine's"
    if problem:
        raise ServerError(
            f"the device server at {server} gave what was not asked for: {problem}; "
            "is it the same version as this client?"
        )


def _problem(wanted: Sequence[WantedDevice], given: Sequence[AttachedDevice]) -> str | None:
    if [device.name for device in given] != [device.name for device in wanted]:
        return f"{len(given)} devices that are not the {len(wanted)} of this machine"
    if len({device.device_id for device in given}) != len(given):
        return "two devices with one number"
    for device in given:
        if max(len(device.feeds), len(device.emits)) > _MAX_CHANNELS:
            return f"device '{device.name}' with more than {_MAX_CHANNELS} channels"
        for region in device.regions:
            if not _is_sound(region):
                return f"device '{device.name}' with a region outside its address space"
            if any(p.offset + p.length > region.size for p in region.policies):
                return f"device '{device.name}' with a policy outside its region"
    return None


def _is_sound(region: AttachedRegion) -> bool:
    known = region.space in tuple(AddressSpace)
    return (
        known and region.size > 0 and region.base + region.size <= _ENDS[AddressSpace(region.space)]
    )
