"""A machine's description in its state, and the machine that is made of one."""

from __future__ import annotations

from pathlib import Path

from devserver.machine.board import DeviceWiring
from devserver.plain import to_plain
from devserver.protocol.messages import Hypervisor
from kvmshim.errors import InputError
from kvmshim.hypervisor.choose import choose
from kvmshim.loader import BootPlan, ImageKind
from kvmshim.loader.plan import RESET_START, Rom
from kvmshim.machinefile import DeviceSpec, MachineSpec
from kvmshim.machinefile.spec import MAX_MEMORY_BYTES, MEMORY_GRANULE_BYTES, MIN_MEMORY_BYTES
from kvmshim.vmstate.state import DamagedState, DeviceDescription, MachineDescription

_MAX_ROM_BYTES = 16 << 20


def describe(spec: MachineSpec, name: str, rom: Rom | None) -> MachineDescription:
    """What there is to say of a machine that runs already: its image is in its memory."""
    return MachineDescription(
        name=name,
        hypervisor=int(choose(spec.hypervisor).identifier),
        memory_bytes=spec.memory_bytes,
        rom_bytes=0 if rom is None else len(rom.data),
        rom_shadowed=rom is not None and rom.shadowed,
        irqchip=spec.irqchip,
        strict=spec.strict,
        servers=dict(spec.servers),
        devices=tuple(_describe_device(device) for device in spec.devices),
    )


def _describe_device(device: DeviceSpec) -> DeviceDescription:
    wiring = device.wiring
    return DeviceDescription(
        name=wiring.name,
        kind=wiring.kind,
        placement=device.placement,
        bases=dict(wiring.bases),
        lines=dict(wiring.lines),
        options=to_plain(dict(wiring.options)),
        policies=dict(wiring.policies),
    )


def spec_of(machine: MachineDescription, path: Path | None = None) -> MachineSpec:
    """The machine again. Raises :class:`InputError`, or :class:`DamagedState`."""
    if machine.hypervisor not in tuple(Hypervisor):
        known = ", ".join(f"{kind.value} ({kind.name})" for kind in Hypervisor)
        raise InputError(
            f"the machine ran on hypervisor kind {machine.hypervisor}, which this client does not "
            f"know; it knows {known}"
        )
    size = machine.memory_bytes
    if not MIN_MEMORY_BYTES <= size <= MAX_MEMORY_BYTES or size % MEMORY_GRANULE_BYTES:
        raise DamagedState(f"the machine's state is damaged: it has {size} bytes of memory")
    if not 0 <= machine.rom_bytes <= _MAX_ROM_BYTES or machine.rom_bytes % MEMORY_GRANULE_BYTES:
        raise DamagedState(f"the machine's state is damaged: it has {machine.rom_bytes} of ROM")
    return MachineSpec(
        memory_bytes=size,
        devices=tuple(_device_of(device) for device in machine.devices),
        servers=dict(machine.servers),
        irqchip=machine.irqchip,
        hypervisor=Hypervisor(machine.hypervisor).name.lower(),
        strict=machine.strict,
        path=path,
    )


def _device_of(device: DeviceDescription) -> DeviceSpec:
    wiring = DeviceWiring(
        name=device.name,
        kind=device.kind,
        bases=device.bases,
        lines=device.lines,
        options=device.options,
        policies=device.policies,
    )
    return DeviceSpec(wiring=wiring, placement=device.placement)


def plan_of(machine: MachineDescription) -> BootPlan:
    """A plan with nothing to load: memory and registers come with the state."""
    rom = None
    if machine.rom_bytes:
        rom = Rom(bytes(machine.rom_bytes), shadowed=machine.rom_shadowed)
    return BootPlan(name=machine.name, kind=ImageKind.FLAT, start=RESET_START, rom=rom)
