"""/dev/kvm itself: the system level of KVM's interface."""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Any, Self

from kvmshim import abi
from kvmshim.abi import ffi, lib
from kvmshim.errors import HostError, KvmError
from kvmshim.hypervisor.kvm.vm import Vm

DEVICE = "/dev/kvm"
#: The one version there is (api.rst, KVM_GET_API_VERSION).
API_VERSION = 12

_ADVICE = {
    errno.ENOENT: "the kvm module is not loaded, or this machine's virtualization is off "
    "(firmware set-up, or nested virtualization of the machine around it)",
    errno.EACCES: "add yourself to the group that owns it (often 'kvm'), "
    "or give it mode 0666 with a udev rule",
    errno.EPERM: "this container or sandbox forbids the device; pass it through",
    errno.ENXIO: "the kvm module found no virtualization hardware",
    errno.ENODEV: "the kvm module found no virtualization hardware",
}
_MAX_CPUID_ENTRIES = 256
_MAX_MSRS = 1024
#: A signal may interrupt the long allocation that KVM_CREATE_VM is.
_ATTEMPTS = 5


class System:
    """An open /dev/kvm. Use it in a ``with`` statement or call :meth:`close`."""

    def __init__(self, path: str = DEVICE) -> None:
        """Raises :class:`HostError` if the device is missing, forbidden or too old."""
        self.path = path
        self.fd: int = lib.kvm_open(os.fsencode(path))
        if self.fd < 0:
            number = ffi.errno
            name = errno.errorcode.get(number, str(number))
            advice = _ADVICE.get(number, "see 'kvmshim doctor'")
            raise HostError(f"can't open {path}: {os.strerror(number)} ({name}); {advice}")
        try:
            self._check_version()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the device; VMs made from it go on."""
        if self.fd >= 0:
            lib.kvm_close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def api_version(self) -> int:
        """KVM_GET_API_VERSION."""
        return abi.call_value(self.fd, "KVM_GET_API_VERSION", 0, self.path)

    def check(self, capability: abi.Capability) -> int:
        """KVM_CHECK_EXTENSION: 0 if absent, else 1 or a number that the capability defines."""
        return abi.call_value(self.fd, "KVM_CHECK_EXTENSION", capability.number, self.path)

    def _check_version(self) -> None:
        version = self.api_version()
        if version != API_VERSION:
            raise HostError(
                f"{self.path} has API version {version}; this client needs {API_VERSION}"
            )

    def require(self) -> None:
        """Raises :class:`HostError` naming every required capability that is absent."""
        missing = [c for c in abi.CAPABILITIES if c.required and not self.check(c)]
        if missing:
            what = ", ".join(f"{c.name} ({c.use})" for c in missing)
            raise HostError(f"KVM on this host lacks {what}; a newer kernel is needed")

    def require_rom(self) -> None:
        """Raises :class:`HostError` if KVM can't have memory that a guest can't write to."""
        if not self.check(abi.capability("KVM_CAP_READONLY_MEM")):
            raise HostError(
                "KVM on this host lacks KVM_CAP_READONLY_MEM, which ROM images need; "
                "boot a flat image or a boot sector without the BIOS instead"
            )

    def create_vm(self) -> Vm:
        """KVM_CREATE_VM. Raises :class:`KvmError` or :class:`HostError`."""
        for _ in range(_ATTEMPTS):
            try:
                return Vm(self, abi.call_value(self.fd, "KVM_CREATE_VM", 0, self.path))
            except KvmError as error:
                if error.errno != errno.EINTR:
                    raise
        raise HostError(f"KVM_CREATE_VM on {self.path} was interrupted again and again")

    def vcpu_map_bytes(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE: bytes of a vCPU's kvm_run mapping."""
        return abi.call_value(self.fd, "KVM_GET_VCPU_MMAP_SIZE", 0, self.path)

    def supported_cpuid(self) -> Any:
        """KVM_GET_SUPPORTED_CPUID: a ``struct kvm_cpuid2 *`` for KVM_SET_CPUID2."""
        table = ffi.new("struct kvm_cpuid2 *", {"entries": _MAX_CPUID_ENTRIES})
        table.nent = _MAX_CPUID_ENTRIES
        abi.call(self.fd, "KVM_GET_SUPPORTED_CPUID", table, self.path)
        return table

    def cpuid_rows(self) -> tuple[tuple[int, ...], ...]:
        """The same as rows of function, index, flags, EAX, EBX, ECX, EDX."""
        table = self.supported_cpuid()
        return tuple(
            (e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx)
            for e in table.entries[0 : table.nent]
        )

    def msr_numbers(self) -> list[int]:
        """KVM_GET_MSR_INDEX_LIST: the model-specific registers that are a guest's state."""
        table = ffi.new("struct kvm_msr_list *", {"indices": _MAX_MSRS})
        table.nmsrs = _MAX_MSRS
        abi.call(self.fd, "KVM_GET_MSR_INDEX_LIST", table, self.path)
        return [int(number) for number in table.indices[0 : table.nmsrs]]
