"""Every key that a machine file may have; the reader, its errors and the manual go by this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from devserver.machine.board import BOARDS
from kvmshim.machinefile import convert, spec
from kvmshim.machinefile.convert import Converter


@dataclass(frozen=True)
class Key:
    """A key: its type and default in the manual's words, and what checks its value."""

    name: str
    type: str
    default: str
    convert: Converter


MACHINE_KEYS = (
    Key("memory", "size", '"16M"', convert.memory),
    Key("board", "text", f'"{spec.DEFAULT_BOARD}"', convert.choice(*BOARDS)),
    Key("irqchip", "text", f'"{spec.IRQCHIPS[0]}"', convert.choice(*spec.IRQCHIPS)),
    Key("placement", "text", f'"{spec.PLACED_ON_SERVER}"', convert.text),
    Key("models", "list of files", "[]", convert.file_paths),
    Key("hypervisor", "text", f'"{spec.HYPERVISORS[0]}"', convert.choice(*spec.HYPERVISORS)),
)

IMAGE_KEYS = (
    Key("path", "text", "required", convert.file_path),
    Key("kind", "text", '"auto"', convert.image_kind),
    Key("load-address", "address", "the kind's own", convert.address),
    Key("entry", "address", "the kind's own", convert.address),
    Key("append", "text", '""', convert.text),
    Key("bios", "boolean", "the kind's own", convert.boolean),
    Key("screen", "boolean", "as the output is", convert.boolean),
    Key("disk-writes", "boolean", "false", convert.boolean),
)

#: The keys of this table are names that the user chooses.
SERVER_KEYS = (Key("NAME", "text", "none", convert.server_address),)

MODULE_KEYS = (
    Key("path", "text", "required", convert.file_path),
    Key("append", "text", '""', convert.text),
)

#: The keys of this table are names of registers.
REGISTER_KEYS = (Key("NAME", "register value", "the kind's own", convert.register_value),)

DEVICE_KEYS = (
    Key("name", "text", "required", convert.name),
    Key("kind", "text", "required, unless on the board", convert.name),
    Key("port", "port", "none", convert.port),
    Key("ports", "table of ports", "none", convert.ports),
    Key("mem", "address", "none", convert.mem),
    Key("mems", "table of addresses", "none", convert.mems),
    Key("irq", "interrupt line", "none", convert.irq),
    Key("irqs", "table of interrupt lines", "none", convert.irqs),
    Key("placement", "text", "the machine's", convert.text),
    Key("options", "table", "the model's own", convert.options),
    Key("policy", "text", '"declared"', convert.policy),
    Key("policies", "table of policies", "the model's own", convert.policies),
    Key("remove", "boolean", "false", convert.boolean),
)

#: The tables of a file, as written there, and their keys.
TABLES: Mapping[str, tuple[Key, ...]] = {
    "[machine]": MACHINE_KEYS,
    "[image]": IMAGE_KEYS,
    "[[module]]": MODULE_KEYS,
    "[registers]": REGISTER_KEYS,
    "[servers]": SERVER_KEYS,
    "[[device]]": DEVICE_KEYS,
}
