"""From a hypervisor's name to what implements it."""

from __future__ import annotations

from devserver.protocol.messages import Hypervisor
from kvmshim.errors import HostError, InputError
from kvmshim.hypervisor.interface import Host, Kind
from kvmshim.machinefile.convert import suggest
from kvmshim.machinefile.spec import HYPERVISORS


def choose(name: str) -> Kind:
    """The kind of that name. Raises :class:`InputError` naming the nearest."""
    if name not in HYPERVISORS:
        raise InputError(f"there is no hypervisor {name!r}{suggest(name, HYPERVISORS)}")
    kinds = {kind.name: kind for kind in (_KVM, _UNICORN)}
    return kinds[name]


def _open_kvm() -> Host:
    from kvmshim.hypervisor.kvm.system import System
    from kvmshim.hypervisor.unicorn.package import ADVICE, find_library

    try:
        return System()
    except HostError as error:
        how = "" if find_library() else f", after {ADVICE}"
        raise HostError(
            f"{error}. Without KVM, '--hypervisor unicorn' emulates the processor{how}"
        ) from None


def _open_unicorn() -> Host:
    from kvmshim.hypervisor.unicorn.host import UnicornHost

    return UnicornHost()


_KVM = Kind("kvm", Hypervisor.KVM, "", _open_kvm)
_UNICORN = Kind(
    "unicorn",
    Hypervisor.UNICORN,
    "the Unicorn engine emulates the guest's processor; KVM is not used",
    _open_unicorn,
)
