"""The state of a processor that the Unicorn engine emulates.

It is the engine's own copy (uc_context), whose layout belongs to one version of its library: no
other version may have it back. It has no addresses of the process in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvmshim.errors import HostError
from kvmshim.hypervisor.interface import Vcpu
from kvmshim.hypervisor.unicorn.package import library_version
from kvmshim.hypervisor.unicorn.vcpu import UnicornVcpu
from kvmshim.vmstate.state import DamagedState

_NAME = "unicorn"


def need() -> str:
    """What a host must have that goes on with a machine of this one."""
    return f"{_NAME} {library_version()}"


def save(vcpu: Vcpu) -> dict[str, bytes]:
    """The structures of a vCPU that does not run."""
    assert isinstance(vcpu, UnicornVcpu)
    return {_NAME: vcpu.save()}


def load(vcpu: Vcpu, structures: Mapping[str, bytes]) -> None:
    """Puts them back. Raises :class:`DamagedState`."""
    assert isinstance(vcpu, UnicornVcpu)
    try:
        vcpu.load(structures[_NAME])
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
