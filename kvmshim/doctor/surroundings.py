"""What kind of host this is, as far as advice depends on it: vendor, virtual or not, container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmshim.doctor.host import Host

_VENDORS = {"GenuineIntel": "intel", "AuthenticAMD": "amd", "HygonGenuine": "amd"}
#: Intel VT-x and AMD-V, by their names in /proc/cpuinfo.
_EXTENSIONS = {"vmx": "intel", "svm": "amd"}
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")


@dataclass(frozen=True)
class HostFacts:
    """``vendor`` is 'intel', 'amd' or None; ``extension`` likewise: whose virtualization it has.

    ``modules`` are the kvm modules that are loaded or built in.
    """

    vendor: str | None
    extension: str | None
    in_vm: bool
    in_container: bool
    modules: tuple[str, ...]

    def module_names(self) -> str:
        """The kvm modules that this processor's vendor has, for a person to choose from."""
        return f"kvm_{self.vendor}" if self.vendor else "kvm_intel or kvm_amd"

    def switch_on(self) -> str:
        """How to get a working /dev/kvm where there is none."""
        if self.in_container:
            return (
                "pass the device to this container (--device /dev/kvm); "
                f"the host needs it first: {self._switch_on_host()}"
            )
        return self._switch_on_host()

    def _switch_on_host(self) -> str:
        if self.extension:
            return f"load KVM with 'sudo modprobe kvm_{self.extension}'"
        if self.in_vm:
            return (
                "enable nested virtualization on the machine around this one "
                f"({self._nested_parameter()}, and a CPU model that shows it to this one; "
                "in a cloud, choose an instance type that has it), "
                f"then 'sudo modprobe {self.module_names()}'"
            )
        return (
            "switch virtualization (VT-x or AMD-V) on in the firmware set-up, "
            f"then 'sudo modprobe {self.module_names()}'"
        )

    def _nested_parameter(self) -> str:
        return f"kvm_{self.vendor}.nested=1" if self.vendor else "kvm_intel.nested=1"


def look_around(host: Host) -> HostFacts:
    """Reads it off the host's files; what can't be read counts as absent."""
    fields = cpu_fields(host)
    flags = fields.get("flags", "").split()
    return HostFacts(
        vendor=_VENDORS.get(fields.get("vendor_id", "")),
        extension=next((_EXTENSIONS[flag] for flag in flags if flag in _EXTENSIONS), None),
        in_vm="hypervisor" in flags,
        in_container=any(host.read(mark) is not None for mark in _CONTAINER_MARKS),
        modules=tuple(n for n in host.names("/sys/module") if n == "kvm" or n.startswith("kvm_")),
    )


def cpu_fields(host: Host) -> dict[str, str]:
    """The first processor's fields in /proc/cpuinfo."""
    first, _, _ = (host.read("/proc/cpuinfo") or "").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
