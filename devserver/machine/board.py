"""The wiring of a machine, as data: which device sits at which ports, on which interrupt lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: In the place of a region's name: the first one that lies in memory.
IN_MEMORY = "@memory"


@dataclass(frozen=True, kw_only=True)
class DeviceWiring:
    """One device in a machine.

    ``bases`` maps the model's region names to addresses, ``lines`` its outputs to interrupt lines
    (ISA interrupt numbers, which are KVM's GSIs 0 to 15), ``options`` goes to the model. The name
    ``""`` stands for the model's first region, and for the output of a model with only one.
    ``policies`` maps register names, or ``*`` for all others, to what replaces the model's policies
    there, in the words of ``WantedDevice.policies`` (docs/protocol.md).
    """

    name: str
    kind: str
    bases: Mapping[str, int] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)


#: A PC's classic devices where every PC has them. Sources: IBM PC/AT Technical Reference (system
#: board I/O map); the debug console, debug exit, test device and fw_cfg as QEMU and Bochs place
#: them.
PC_BOARD: tuple[DeviceWiring, ...] = (
    DeviceWiring(
        name="pit", kind="pit8254", bases={"counters": 0x40, "portb": 0x61}, lines={"irq": 0}
    ),
    DeviceWiring(name="rtc", kind="mc146818", bases={"io": 0x70}, lines={"irq": 8}),
    DeviceWiring(name="post", kind="postcode", bases={"io": 0x80}),
    DeviceWiring(
        name="testdev",
        kind="testdev",
        bases={"latch": 0xE0, "lines": 0x2000},
        lines={f"irq{n}": n for n in range(24)},
    ),
    DeviceWiring(name="debugcon", kind="debugcon", bases={"io": 0xE9, "bochs": 0x402}),
    DeviceWiring(name="exit", kind="debugexit", bases={"io": 0xF4}),
    DeviceWiring(name="com1", kind="uart16550", bases={"io": 0x3F8}, lines={"irq": 4}),
    DeviceWiring(name="fw_cfg", kind="fw_cfg", bases={"io": 0x510}),
    DeviceWiring(name="kbc", kind="i8042", bases={"data": 0x60, "command": 0x64}, lines={"irq": 1}),
    DeviceWiring(name="porta", kind="port92", bases={"io": 0x92}),
    DeviceWiring(name="vgastatus", kind="vgastatus", bases={"io": 0x3DA}),
    DeviceWiring(name="resetctl", kind="resetctl", bases={"io": 0xCF9}),
)

BOARDS: Mapping[str, tuple[DeviceWiring, ...]] = {"pc": PC_BOARD, "none": ()}

#: The line with which interrupt controllers that are a device ask the processor; no device's.
LINE_INTR = 1023

#: A PC's interrupt controllers, for machines whose are not KVM's own. Sources: IBM PC/AT Technical
#: Reference (system board I/O map); Intel 82371AB (PIIX4), ELCR.
CONTROLLERS = DeviceWiring(
    name="pic",
    kind="i8259",
    bases={"master": 0x20, "slave": 0xA0, "elcr": 0x4D0, "bus": 0},
    lines={"intr": LINE_INTR},
)
