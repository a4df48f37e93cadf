"""Machine files: TOML that says what a machine has; ``docs/machine-file.md`` is their manual."""

from kvmshim.machinefile.read import load_machine, parse_machine
from kvmshim.machinefile.spec import DeviceSpec, ImageSpec, MachineSpec, default_machine

__all__ = [
    "DeviceSpec",
    "ImageSpec",
    "MachineSpec",
    "default_machine",
    "load_machine",
    "parse_machine",
]
