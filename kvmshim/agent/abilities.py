"""What this client platform can run VMs with."""

from __future__ import annotations

from typing import Any

from kvmshim import abi
from kvmshim.errors import KvmshimError
from kvmshim.hypervisor.kvm.system import System
from kvmshim.hypervisor.unicorn.package import library_version


def hypervisors() -> list[dict[str, Any]]:
    """Each hypervisor of this host: ``kind``, ``version``, and ``capabilities`` with their values
    (KVM_CHECK_EXTENSION)."""
    return [*_kvm(), *_unicorn()]


def _kvm() -> list[dict[str, Any]]:
    try:
        with System() as system:
            capabilities = {c.name: system.check(c) for c in abi.CAPABILITIES}
            version = f"API {system.api_version()}"
    except KvmshimError:
        return []
    return [{"kind": "kvm", "version": version, "capabilities": capabilities}]


def _unicorn() -> list[dict[str, Any]]:
    version = library_version()
    if version is None:
        return []
    return [{"kind": "unicorn", "version": version, "capabilities": {}}]
