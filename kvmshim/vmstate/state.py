"""What a paused machine's state is, as plain data.

Everything but memory is a :class:`Header`. Nothing in it is pickled: it becomes a msgpack map, and
is checked field by field when it comes back.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import msgpack

from devserver.plain import PlainError, from_plain, to_plain
from kvmshim.errors import InputError

#: No block of memory is longer than this when it is unpacked.
MAX_BLOCK_BYTES = 256 * 1024


class DamagedState(InputError):
    """A machine's state that is not what it was when it was saved."""


class Block(NamedTuple):
    """``size`` bytes of guest memory from the guest-physical ``address``, compressed (zlib)."""

    address: int
    size: int
    data: bytes

    @classmethod
    def pack(cls, address: int, raw: bytes) -> Self:
        """The quickest compression: what guests leave in memory is mostly easy to compress."""
        return cls(address, len(raw), zlib.compress(raw, 1))

    def unpack(self) -> bytes:
        """The bytes themselves. Raises :class:`DamagedState`."""
        what = f"the memory block at {self.address:#x} is damaged"
        if not 0 < self.size <= MAX_BLOCK_BYTES:
            raise DamagedState(f"{what}: it would have {self.size} bytes")
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(self.data, self.size)
        except zlib.error as error:
            raise DamagedState(f"{what}: {error}") from None
        if len(raw) != self.size or not unpacker.eof or unpacker.unused_data:
            raise DamagedState(f"{what}: it does not unpack to {self.size} bytes")
        return raw


@dataclass(frozen=True)
class DeviceDescription:
    """A device of the machine; the fields of ``DeviceWiring``, and its place."""

    name: str
    kind: str
    placement: str
    bases: dict[str, int]
    lines: dict[str, int]
    options: dict[str, Any]
    policies: dict[str, str]


@dataclass(frozen=True)
class MachineDescription:
    """What the machine is, however it was started.

    ``rom_bytes``: 0 if it has no ROM. ``rom_shadowed``: below 1 MiB there is RAM in its place.
    """

    name: str
    hypervisor: int
    memory_bytes: int
    rom_bytes: int
    rom_shadowed: bool
    irqchip: str
    strict: bool
    servers: dict[str, str]
    devices: tuple[DeviceDescription, ...]


@dataclass(frozen=True)
class CpuState:
    """A vCPU.

    ``structures`` are KVM's own, by their names without ``kvm_``: their layout is part of its
    binary interface. ``msrs`` maps numbers to values; ``cpuid`` has rows of function, index, flags,
    EAX, EBX, ECX, EDX. ``tsc_khz`` is 0 where KVM does not tell it.
    """

    structures: dict[str, bytes]
    msrs: dict[int, int]
    cpuid: tuple[tuple[int, ...], ...]
    mp_state: int
    tsc_khz: int


@dataclass(frozen=True)
class ChipState:
    """What the VM has in the kernel: interrupt controllers by name, and KVM's clock in ns."""

    controllers: dict[str, bytes] = field(default_factory=dict)
    clock_ns: int | None = None


@dataclass(frozen=True)
class PendingInput:
    """Input of a device's channel that the client still has.

    ``under_way``: so many more were sent, and wait at the device; ``end``: nothing comes behind
    it; ``ended``: the device has been told so.
    """

    device: str
    channel: int
    held: bytes
    under_way: int
    end: bool
    ended: bool


@dataclass(frozen=True)
class Header:
    """All of a machine's state but its memory.

    ``needs`` names the capabilities of KVM without which it can't go on; ``time_ns`` is VM time,
    ``epoch_ns`` the wall-clock time at VM time 0; ``devices`` has each
    device's state (``devserver.machine.device_state``) by place and name.
    """

    machine: MachineDescription
    needs: tuple[str, ...]
    time_ns: int
    epoch_ns: int
    cpu: CpuState
    chips: ChipState
    devices: dict[str, dict[str, bytes]]
    inputs: tuple[PendingInput, ...] = ()

    def to_bytes(self) -> bytes:
        """As msgpack."""
        return bytes(msgpack.packb(to_plain(self)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises :class:`DamagedState`, naming what does not fit."""
        try:
            plain = msgpack.unpackb(data, strict_map_key=False)
            if isinstance(plain, dict) and isinstance(machine := plain.get("machine"), dict):
                machine.setdefault("rom_shadowed", False)  # what format 1 did not know
            header: Self = from_plain(cls, plain, "header")
        except (PlainError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise DamagedState(f"the state's header is damaged: {error}") from None
        return header


@dataclass(frozen=True)
class DetachedDevices:
    """Devices that a VM has left behind on a server, for the client that it goes to.

    ``place`` is what the machine calls the server, or the owner through which it is reached;
    ``name`` is empty if it is that server itself. ``key`` is what an adopter has to show.
    """

    place: str
    server_id: int
    name: str
    address: str
    vm_id: int
    key: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class MachineState:
    """A paused machine. ``memory`` may be gone through once or more; zeros are left out.

    ``detached``: where its devices wait for it; those that wait nowhere begin with their saved
    states.
    """

    header: Header
    memory: Iterable[Block]
    detached: tuple[DetachedDevices, ...] = ()
