"""Runs x86 guests on KVM whose devices live somewhere else.

>>> from kvmshim import Machine                                             # doctest: +SKIP
>>> with Machine("hello") as machine:                                       # doctest: +SKIP
...     machine.run(timeout_s=10).check()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devserver.version import __version__
from kvmshim.errors import (
    GuestError,
    HostError,
    InputError,
    KvmError,
    KvmshimError,
    MisuseError,
    ServerError,
)

if TYPE_CHECKING:
    from kvmshim.machine import Machine
    from kvmshim.machinefile import DeviceSpec, ImageSpec, MachineSpec, load_machine
    from kvmshim.remote.link import WaitPolicy
    from kvmshim.serial import ExpectError, Serial
    from kvmshim.vmm.assemble import machine_of, parse_device
    from kvmshim.vmm.outcome import Outcome, RunResult

_LATE = {
    "DeviceSpec": "kvmshim.machinefile",
    "ExpectError": "kvmshim.serial",
    "ImageSpec": "kvmshim.machinefile",
    "Machine": "kvmshim.machine",
    "MachineSpec": "kvmshim.machinefile",
    "Outcome": "kvmshim.vmm.outcome",
    "RunResult": "kvmshim.vmm.outcome",
    "Serial": "kvmshim.serial",
    "WaitPolicy": "kvmshim.remote.link",
    "load_machine": "kvmshim.machinefile",
    "machine_of": "kvmshim.vmm.assemble",
    "parse_device": "kvmshim.vmm.assemble",
}

__all__ = [
    "DeviceSpec",
    "ExpectError",
    "GuestError",
    "HostError",
    "ImageSpec",
    "InputError",
    "KvmError",
    "KvmshimError",
    "Machine",
    "MachineSpec",
    "MisuseError",
    "Outcome",
    "RunResult",
    "Serial",
    "ServerError",
    "WaitPolicy",
    "__version__",
    "load_machine",
    "machine_of",
    "parse_device",
]


def __getattr__(name: str) -> Any:
    """Imports the native module only when a machine is wanted: bad input is told without it."""
    if name not in _LATE:
        raise AttributeError(f"module 'kvmshim' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
