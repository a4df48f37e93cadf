"""From a paused machine to its state, and from a state to a machine that can go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devserver.protocol.messages import Hypervisor
from kvmshim.abi import lib
from kvmshim.hypervisor.guest_memory import GuestMemory
from kvmshim.hypervisor.interface import Host, Vcpu, Vm
from kvmshim.machinefile.spec import PLACED_LOCALLY
from kvmshim.remote.link import Link
from kvmshim.vmm.run import Progress
from kvmshim.vmstate import kinds
from kvmshim.vmstate.memory import PageRun, blocks
from kvmshim.vmstate.state import (
    Block,
    ChipState,
    DamagedState,
    Header,
    MachineDescription,
    PendingInput,
)

if TYPE_CHECKING:
    from kvmshim.vmm.local import LocalDevices


@dataclass(frozen=True)
class Opened:
    """An open machine's parts, as far as they have a state; links with their places' names."""

    host: Host
    vm: Vm
    vcpu: Vcpu
    physical: GuestMemory
    control: Any
    links: Sequence[tuple[str, Link]]
    local: LocalDevices | None
    halted: bool = False


def save_header(parts: Opened, machine: MachineDescription, epoch_ns: int) -> Header:
    """The state of a paused machine without its memory. Raises :class:`KvmshimError`."""
    saved_cpu, saved_chips, needs = kinds.save_processor(
        parts.host, parts.vm, parts.vcpu, halted=parts.halted
    )
    needs |= _needs_of_rom(machine)
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


def preliminary_header(parts: Opened, machine: MachineDescription, epoch_ns: int) -> Header:
    """The same of a machine that runs, with what will be needed but without any state."""
    table, needs = kinds.expected(parts.host, parts.vm, parts.vcpu)
    needs |= _needs_of_rom(machine)
    return Header(machine, tuple(sorted(needs)), 0, epoch_ns, table, ChipState(), {})


def all_memory(physical: GuestMemory) -> Iterator[Block]:
    """Everything that memory holds now but zeros."""
    return blocks(physical, [PageRun(part.address, part.size) for part in physical.parts()])


def _needs_of_rom(machine: MachineDescription) -> set[str]:
    needed = machine.rom_bytes and machine.hypervisor == Hypervisor.KVM
    return {"KVM_CAP_READONLY_MEM"} if needed else set()


def load_memory(physical: GuestMemory, memory: Iterable[Block]) -> None:
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
    kinds.load_processor(parts.host, parts.vm, parts.vcpu, header)
    for owner in _owners(parts):
        owner.put_back_inputs(header.inputs, header.time_ns)


def progress_of(header: Header, console: str | None) -> Progress:
    """What the next run is to know of those before."""
    ended = any(pending.end for pending in header.inputs if pending.device == console)
    return Progress(started=True, input_ended=ended, halted=kinds.was_halted(header))


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
