"""What this client platform can run VMs with."""

from __future__ import annotations

from typing import Any

from kvmshim import abi
from kvmshim.errors import HostError
from kvmshim.system import System


def hypervisors() -> list[dict[str, Any]]:
    """Each hypervisor of this host: ``kind``, ``version``, and ``capabilities`` with their values
    (KVM_CHECK_EXTENSION)."""
    try:
        with System() as system:
            capabilities = {c.name: system.check(c) for c in abi.CAPABILITIES}
            version = f"API {system.api_version()}"
    except HostError:
        return []
    return [{"kind": "kvm", "version": version, "capabilities": capabilities}]
