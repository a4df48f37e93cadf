"""The state of a processor that the Unicorn engine emulates.

It is the engine's own copy (uc_context), whose layout belongs to one version of its library: no
other version may have it back. It has no addresses of the process in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kvmshim.errors import HostError
from kvmshim.hypervisor.interface import Vcpu
from kvmshim.hypervisor.unicorn.package import library_version
from kvmshim.vmstate.state import DamagedState

if TYPE_CHECKING:
    from kvmshim.hypervisor.unicorn.vcpu import UnicornVcpu

_NAME = "unicorn"


def need() -> str:
    """What a host must have that goes on with a machine of this one."""
    return f"{_NAME} {library_version()}"


def _emulated(vcpu: Vcpu) -> UnicornVcpu:
    from kvmshim.hypervisor.unicorn.vcpu import UnicornVcpu  # slow to come by, and rarely needed

    assert isinstance(vcpu, UnicornVcpu)
    return vcpu


def save(vcpu: Vcpu) -> dict[str, bytes]:
    """The structures of a vCPU that does not run."""
    return {_NAME: _emulated(vcpu).save()}


def load(vcpu: Vcpu, structures: Mapping[str, bytes]) -> None:
    """Puts them back. Raises :class:`DamagedState`."""
    try:
        _emulated(vcpu).load(structures[_NAME])
    except (KeyError, ValueError) as error:
        raise DamagedState(f"the state of the processor is damaged: {error}") from None


def check_needs(needs: Iterable[str]) -> None:
    """Raises :class:`HostError` naming what this host lacks."""
    absent = [name for name in needs if name != need()]
    if absent:
        raise HostError(
            f"the machine's processor was emulated by {', '.join(absent)}, and its state is of use "
            f"to that alone; this host has {need()}"
        )
