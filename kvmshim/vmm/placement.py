"""Where each device of a machine runs: in this process, or on which server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TypeVar

from devserver.machine.board import DeviceWiring
from devserver.models import catalog
from devserver.protocol.address import AddressError, parse_address
from devserver.protocol.messages import AttachedDevice
from kvmshim.errors import InputError
from kvmshim.machinefile import DeviceSpec, MachineSpec
from kvmshim.machinefile.spec import PLACED_LOCALLY, PLACED_ON_SERVER

_Owner = TypeVar("_Owner")

LOCAL = PLACED_LOCALLY
SERVER = PLACED_ON_SERVER

#: Models that tell a guest the size of memory: the RTC's NVRAM, and QEMU's interface for firmware.
_TOLD_MEMORY = ("mc146818", "fw_cfg")
#: Between a server and the one of its I/O servers that is to have a device.
_OF = "/"


def group(spec: MachineSpec) -> dict[str, list[DeviceWiring]]:
    """The machine's devices by place, in the order of the machine."""
    by_place: dict[str, list[DeviceWiring]] = {}
    for device in wired(spec):
        by_place.setdefault(server_of(device.placement), []).append(device.wiring)
    return by_place


def wired(spec: MachineSpec) -> Iterator[DeviceSpec]:
    """The machine's devices as they are asked for.

    Those that tell a guest the size of memory are told it.
    """
    for device in spec.devices:
        wiring = device.wiring
        if wiring.kind in _TOLD_MEMORY and "memory_bytes" not in wiring.options:
            options = {**wiring.options, "memory_bytes": spec.memory_bytes}
            wiring = dataclasses.replace(wiring, options=options)
        yield dataclasses.replace(device, wiring=wiring)


def server_of(placement: str) -> str:
    """The server that a device's placement names: what stands before a slash."""
    return placement.partition(_OF)[0]


def host_of(placement: str) -> str:
    """Which of that server's I/O servers it names, or ``auto``; empty if none."""
    return placement.partition(_OF)[2]


def address_of(place: str, spec: MachineSpec, default: str | None) -> str:
    """The address of the server named ``place``; raises :class:`InputError`."""
    address = default if place == SERVER else spec.servers.get(place)
    if address is None:
        raise InputError(f"no server is named '{place}'; name it under [servers]")
    try:
        parse_address(address)
    except AddressError as error:
        raise InputError(str(error)) from None
    return address


def load_models(files: Iterable[str]) -> None:
    """Makes the models of Python files known in this process. Raises :class:`InputError`."""
    try:
        for path in files:
            catalog.load_file(path)
    except catalog.UnknownModel as error:
        raise InputError(str(error)) from None


def console_of(devices: Iterable[AttachedDevice]) -> AttachedDevice | None:
    """The device that the terminal's input goes to: the first that takes any."""
    return next((device for device in devices if device.feeds), None)


def taker_of(
    name: str, devices: Iterable[tuple[_Owner, AttachedDevice]]
) -> tuple[_Owner, AttachedDevice]:
    """The device of this name that takes input, with its owner; raises :class:`InputError`."""
    known = list(devices)
    takers = {device.name: (owner, device) for owner, device in known if device.feeds}
    if name in takers:
        return takers[name]
    there = any(name == device.name for _, device in known)
    why = "takes no input" if there else "is not one of the machine's"
    raise InputError(f"device '{name}' {why}; those that take input: {', '.join(takers) or 'none'}")
