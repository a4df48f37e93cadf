"""A machine as its file describes it: checked, with every default filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from devserver.machine.board import BOARDS, CONTROLLERS, DeviceWiring
from kvmshim.loader import ImageKind
from kvmshim.loader.registers import Setting

#: Placement in the server that the command line names, or in the embedded one.
PLACED_ON_SERVER = "server"
#: Placement in the client platform itself.
PLACED_LOCALLY = "local"

DEFAULT_BOARD = "pc"
#: Kinds of hypervisors, the default first.
HYPERVISORS = ("kvm", "unicorn")
#: Where the interrupt controllers are: in KVM, or a device on a server; the default first.
IRQCHIPS = ("kernel", "remote")
DEFAULT_MEMORY_BYTES = 16 << 20
MIN_MEMORY_BYTES = 1 << 20
#: Above this the address space of a PC has its hole for devices, which needs a second memory slot.
MAX_MEMORY_BYTES = 3 << 30
#: KVM maps guest memory in pages of this size.
MEMORY_GRANULE_BYTES = 4 << 10

#: A device of which nothing is posted or leased (docs/protocol.md, WantedDevice).
STRICT_POLICIES: Mapping[str, str] = {"*": "finish+asked"}


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What to boot: most fields are the arguments of :func:`kvmshim.loader.load_image`.

    ``screen`` None is as the output is. ``disk_writes``: what the guest writes to its disk goes
    into the image file when the run ends.
    """

    path: Path
    kind: ImageKind | None = None
    load_address: int | None = None
    entry: int | None = None
    append: str = ""
    bios: bool | None = None
    screen: bool | None = None
    disk_writes: bool = False


@dataclass(frozen=True, kw_only=True)
class ModuleSpec:
    """A file that a multiboot kernel is handed, and what follows its name."""

    path: Path
    append: str = ""


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """A device and where its model runs: ``server``, ``local`` or the name of a server."""

    wiring: DeviceWiring
    placement: str = PLACED_ON_SERVER


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """A machine. ``servers`` maps names to addresses; ``path`` is the file that says all this.

    ``strict``: every access of the guest to a server waits for its answer, whatever the models
    and the devices' own policies say. ``models`` are Python files that define device models.
    """

    memory_bytes: int = DEFAULT_MEMORY_BYTES
    devices: tuple[DeviceSpec, ...] = ()
    image: ImageSpec | None = None
    modules: tuple[ModuleSpec, ...] = ()
    registers: tuple[Setting, ...] = ()
    servers: Mapping[str, str] = field(default_factory=dict)
    irqchip: str = IRQCHIPS[0]
    hypervisor: str = HYPERVISORS[0]
    strict: bool = False
    models: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def has_kernel_irqchip(self) -> bool:
        """Whether the interrupt controllers are KVM's own; else they are one of the devices."""
        return self.irqchip == IRQCHIPS[0] and self.hypervisor == HYPERVISORS[0]

    def with_controllers(self) -> MachineSpec:
        """The machine with a device for its interrupt controllers, if it needs one and has none."""
        if self.has_kernel_irqchip or any(d.wiring.kind == CONTROLLERS.kind for d in self.devices):
            return self
        placement = PLACED_LOCALLY if self.irqchip == IRQCHIPS[0] else PLACED_ON_SERVER
        controllers = DeviceSpec(wiring=CONTROLLERS, placement=placement)
        return replace(self, devices=(controllers, *self.devices))


def default_machine() -> MachineSpec:
    """The machine of one who writes no file: a PC's devices, all on the server."""
    return MachineSpec(devices=tuple(DeviceSpec(wiring=wiring) for wiring in BOARDS[DEFAULT_BOARD]))
