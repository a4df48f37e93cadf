"""From a paused machine to its state, and from a state to a machine that can go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvmshim import abi
from kvmshim.abi import lib
from kvmshim.errors import HostError
from kvmshim.link import Link
from kvmshim.local import LocalDevices
from kvmshim.machinefile.spec import PLACED_LOCALLY
from kvmshim.physical import PhysicalMemory
from kvmshim.run import Progress
from kvmshim.system import System
from kvmshim.vcpu import Vcpu
from kvmshim.vm import Vm
from kvmshim.vmstate import chips, cpu
from kvmshim.vmstate.memory import PageRun, blocks
from kvmshim.vmstate.state import (
    Block,
    ChipState,
    CpuState,
    DamagedState,
    Header,
    MachineDescription,
    PendingInput,
)

#: KVM_GET_MP_STATE (api.rst).
_RUNNABLE, _HALTED = int(lib.KVM_MP_STATE_RUNNABLE), int(lib.KVM_MP_STATE_HALTED)


@dataclass(frozen=True)
class Opened:
    """An open machine's parts, as far as they have a state; links with their places' names."""

    system: System
    vm: Vm
    vcpu: Vcpu
    physical: PhysicalMemory
    control: Any
    links: Sequence[tuple[str, Link]]
    local: LocalDevices | None
    halted: bool = False


def save_header(parts: Opened, machine: MachineDescription, epoch_ns: int) -> Header:
    """The state of a paused machine without its memory. Raises :class:`KvmshimError`."""
    saved_cpu = cpu.save_cpu(parts.vcpu, parts.system, has_apic=parts.vm.has_irqchip)
    if parts.halted:
        saved_cpu = replace(saved_cpu, mp_state=_HALTED)
    saved_chips = chips.save_chips(parts.vm, parts.system)
    needs = {*cpu.needs_of_cpu(saved_cpu), *chips.needs_of_chips(saved_chips)}
    if machine.rom_bytes:
        needs.add("KVM_CAP_READONLY_MEM")
    return Header(
        machine=machine,
        needs=tuple(sorted(needs)),
        time_ns=int(lib.control_time_ns(parts.control)),
        epoch_ns=epoch_ns,
        cpu=saved_cpu,
        chips=saved_chips,
        devices=_save_devices(parts),
        inputs=tuple(_owners_inputs(parts)),
    )


def prospect(parts: Opened, machine: MachineDescription, epoch_ns: int) -> Header:
    """The same of a machine that runs, with what will be needed but without any state."""
    needs = {*cpu.needs_of(parts.system, has_apic=parts.vm.has_irqchip)}
    if parts.vm.has_irqchip:
        needs.add("KVM_CAP_IRQCHIP")
    if machine.rom_bytes:
        needs.add("KVM_CAP_READONLY_MEM")
    table = CpuState({}, {}, parts.vcpu.cpuid, 0, 0)
    return Header(machine, tuple(sorted(needs)), 0, epoch_ns, table, ChipState(), {})


def all_memory(physical: PhysicalMemory) -> Iterator[Block]:
    """Everything that memory holds now but zeros."""
    return blocks(physical, [PageRun(part.address, part.size) for part in physical.parts()])


def check_host(header: Header, system: System) -> None:
    """Raises :class:`HostError` naming what this host lacks to go on with the machine."""
    absent = []
    for name in header.needs:
        try:
            capability = abi.capability(name)
        except KeyError:
            absent.append(f"{name}, which this client does not know")
            continue
        if not system.check(capability):
            absent.append(f"{name} ({capability.use})")
    if absent:
        raise HostError(f"the machine needs what KVM on this host lacks: {', '.join(absent)}")
    cpu.check_features(system, header.cpu)


def load_memory(physical: PhysicalMemory, memory: Iterable[Block]) -> None:
    """Puts blocks where they were. Raises :class:`DamagedState`."""
    for block in memory:
        try:
            physical.write(block.address, block.unpack())
        except ValueError as error:
            if isinstance(error, DamagedState):
                raise
            raise DamagedState(
                f"a memory block of the machine's state is damaged: {error}"
            ) from None


def load_vm(parts: Opened, header: Header) -> None:
    """Puts in all but memory, VM time and the devices. Raises :class:`KvmshimError`.

    The devices are there, and have driven their interrupt lines. Now the controllers get their
    state, in which they have seen these levels: no line makes an edge.
    """
    chips.load_chips(parts.vm, parts.system, header.chips)
    saved_cpu = header.cpu
    if not parts.vm.has_irqchip:  # then KVM knows of no other state
        saved_cpu = replace(saved_cpu, mp_state=_RUNNABLE)
    cpu.load_cpu(parts.vcpu, parts.system, saved_cpu)
    for owner in _owners(parts):
        owner.put_back_inputs(header.inputs, header.time_ns)


def progress_of(header: Header, console: str | None) -> Progress:
    """What the next run is to know of those before."""
    ended = any(pending.end for pending in header.inputs if pending.device == console)
    halted = not header.chips.controllers and header.cpu.mp_state == _HALTED
    return Progress(started=True, input_ended=ended, halted=halted)


# -- devices ----------------------------------------------------------------------------------


def _owners(parts: Opened) -> list[Link | LocalDevices]:
    return [*(link for _, link in parts.links), *([parts.local] if parts.local is not None else [])]


def _owners_inputs(parts: Opened) -> Iterable[PendingInput]:
    for owner in _owners(parts):
        yield from owner.pending_inputs()


def _save_devices(parts: Opened) -> dict[str, dict[str, bytes]]:
    now_ns = int(lib.control_time_ns(parts.control))
    states: dict[str, dict[str, bytes]] = {}
    for place, link in parts.links:  # a place may have several: a server and its I/O servers
        saved = {d.name: link.save_one(d.device_id, now_ns) for d in link.attached.devices}
        states.setdefault(place, {}).update(saved)
    if parts.local is not None:
        states[PLACED_LOCALLY] = parts.local.save()
    return states
