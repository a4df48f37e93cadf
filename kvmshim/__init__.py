"""Runs small x86 guests on KVM whose devices live somewhere else.

>>> from kvmshim import machine_for, machine_of                             # doctest: +SKIP
>>> with machine_for(machine_of("hello")) as machine:                       # doctest: +SKIP
...     result = machine.run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devserver.version import __version__
from kvmshim.errors import (
    HostError,
    InputError,
    KvmError,
    KvmshimError,
    MisuseError,
    ServerError,
)

if TYPE_CHECKING:
    from kvmshim.vmm.assemble import machine_for, machine_of
    from kvmshim.vmm.machine import Machine
    from kvmshim.vmm.outcome import Outcome, RunResult

__all__ = [
    "HostError",
    "InputError",
    "KvmError",
    "KvmshimError",
    "Machine",
    "MisuseError",
    "Outcome",
    "RunResult",
    "ServerError",
    "__version__",
    "machine_for",
    "machine_of",
]

_LATE = {
    "machine_for": "kvmshim.vmm.assemble",
    "machine_of": "kvmshim.vmm.assemble",
    "Machine": "kvmshim.vmm.machine",
    "Outcome": "kvmshim.vmm.outcome",
    "RunResult": "kvmshim.vmm.outcome",
}


def __getattr__(name: str) -> Any:
    """Imports the native module only when a machine is wanted: bad input is told without it."""
    if name not in _LATE:
        raise AttributeError(f"module 'kvmshim' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
