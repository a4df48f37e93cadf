"""Looks at what is around KVM: the machine, its kernel, processors, clock, memory, limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmshim.doctor.host import Host, Limit
from kvmshim.doctor.report import Finding, Status
from kvmshim.doctor.surroundings import cpu_fields
from kvmshim.errors import KvmshimError
from kvmshim.hypervisor.unicorn.package import ADVICE

if TYPE_CHECKING:
    from kvmshim.doctor.surroundings import HostFacts

_ARCHITECTURE = "x86_64"
#: A vCPU and the server that it waits for; on fewer, one's spinning keeps the other from running.
SPINNING_CPUS = 2
#: The client, its server and a default guest, with room to spare.
ENOUGH_MEMORY_MIB = 128
ENOUGH_OPEN_FILES = 64
ENOUGH_ADDRESS_SPACE_MIB = 1024

_CLOCKSOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
#: Read without a system call, through the vDSO (arch/x86/entry/vdso).
_FAST_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen")
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")

_MIB = 1 << 20


def environment_findings(host: Host, around: HostFacts) -> Iterator[Finding]:
    """Everything but KVM and the server."""
    yield _architecture(host)
    yield _kernel(host)
    yield _cpu(host)
    yield _virtualization(host, around)
    yield _modules(around)
    yield _nested(host, around)
    yield _cpus(host)
    yield _clocksource(host)
    yield _memory(host)
    yield _open_files(host)
    yield _address_space(host)
    yield _unicorn(host)


def server_finding(host: Host) -> Finding:
    """Whether ``python -m devserver`` starts and shakes hands, as ``kvmshim run`` has it do."""
    try:
        elapsed_s = host.try_server()
    except KvmshimError as error:
        advice = "install kvmshim again with pip; 'python -m devserver models' shows the failure"
        return Finding("embedded-server", Status.MISSING, str(error), advice)
    value = f"'python -m devserver' starts and answers after {elapsed_s * 1000:.0f} ms"
    return Finding("embedded-server", Status.OK, value)


def _architecture(host: Host) -> Finding:
    _, machine = host.kernel()
    if machine == _ARCHITECTURE:
        return Finding("architecture", Status.OK, machine)
    return Finding(
        "architecture", Status.MISSING, machine, "guests are x86; use a 64-bit x86 host and kernel"
    )


def _kernel(host: Host) -> Finding:
    release, _ = host.kernel()
    return Finding("kernel", Status.INFO, release)


def _cpu(host: Host) -> Finding:
    fields = cpu_fields(host)
    name = fields.get("model name") or fields.get("vendor_id") or "unknown"
    return Finding("cpu", Status.INFO, name)


def _virtualization(host: Host, around: HostFacts) -> Finding:
    container = ", in a container" if around.in_container else ""
    if not around.in_vm:
        return Finding("virtualization", Status.INFO, f"none: bare metal{container}")
    vendor = host.read("/sys/class/dmi/id/sys_vendor")
    product = host.read("/sys/class/dmi/id/product_name")
    signs = [host.hypervisor_signature(), host.read("/sys/hypervisor/type"), vendor, product]
    known = ", ".join(sign for sign in signs if sign) or "of unknown make"
    value = f"nested: this host is a virtual machine ({known}){container}"
    return Finding("virtualization", Status.INFO, value)


def _modules(around: HostFacts) -> Finding:
    if around.modules:
        return Finding("kvm-modules", Status.INFO, ", ".join(around.modules))
    return Finding("kvm-modules", Status.INFO, "none seen")


def _nested(host: Host, around: HostFacts) -> Finding:
    settings = {name: host.read(f"/sys/module/{name}/parameters/nested") for name in around.modules}
    values = [
        f"{name} {'on' if value in ('Y', '1') else 'off'}"
        for name, value in settings.items()
        if value is not None
    ]
    about = "for kvmshim inside virtual machines of this host"
    return Finding("nested", Status.INFO, f"{', '.join(values) or 'not offered'} ({about})")


def _cpus(host: Host) -> Finding:
    usable = host.usable_cpus()
    quota = _cpu_quota(host)
    value = f"{usable} usable" + (f", limited to {quota:.1f} by cgroup" if quota else "")
    if min(usable, quota or usable) >= SPINNING_CPUS:
        return Finding("cpus", Status.OK, f"{value}: enough for a vCPU and its server to spin")
    return Finding(
        "cpus",
        Status.WARNING,
        f"{value}: too few for a vCPU and its server to spin",
        "use --wait block, or allow this process two processors",
    )


def _cpu_quota(host: Host) -> float | None:
    """Processors that the cgroup allows (cpu.max; cpu.cfs_quota_us in version 1), or None."""
    both = (host.read("/sys/fs/cgroup/cpu.max") or "").split()
    if not both:
        both = [
            host.read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") or "",
            host.read("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or "",
        ]
    if len(both) == 2 and all(number.isdecimal() for number in both) and int(both[1]):
        return int(both[0]) / int(both[1])
    return None


def _clocksource(host: Host) -> Finding:
    name = host.read(_CLOCKSOURCE)
    if name is None:
        return Finding("clocksource", Status.INFO, "unknown")
    if name in _SLOW_CLOCKS:
        advice = (
            "each look at the clock is a system call and accesses are stamped with the time; "
            "if the processor's counter is steady, boot with clocksource=tsc"
        )
        return Finding("clocksource", Status.WARNING, f"{name}: slow to read", advice)
    status = Status.OK if name in _FAST_CLOCKS else Status.INFO
    return Finding("clocksource", status, name)


def _memory(host: Host) -> Finding:
    free_mib = _available_mib(host)
    if free_mib is None:
        return Finding("memory", Status.INFO, "unknown")
    status = Status.OK if free_mib >= ENOUGH_MEMORY_MIB else Status.WARNING
    advice = "" if status is Status.OK else "free some; --memory makes a guest smaller"
    return Finding("memory", status, f"{free_mib} MiB available", advice)


def _available_mib(host: Host) -> int | None:
    """What the kernel says can be had, or the cgroup's limit if that is less."""
    amounts = []
    for line in (host.read("/proc/meminfo") or "").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "MemAvailable:" and words[1].isdecimal():
            amounts.append(int(words[1]) * 1024)
    limit = host.read("/sys/fs/cgroup/memory.max") or ""
    if limit.isdecimal():
        amounts.append(int(limit))
    return min(amounts) // _MIB if amounts else None


def _open_files(host: Host) -> Finding:
    limit = host.limit(Limit.OPEN_FILES)
    if limit is None or limit >= ENOUGH_OPEN_FILES:
        return Finding("open-files", Status.OK, _limit_text(limit, "allowed"))
    advice = f"raise the limit: 'ulimit -n {ENOUGH_OPEN_FILES * 4}'"
    return Finding("open-files", Status.WARNING, _limit_text(limit, "allowed"), advice)


def _address_space(host: Host) -> Finding:
    limit = host.limit(Limit.ADDRESS_SPACE_BYTES)
    mib = None if limit is None else limit // _MIB
    if mib is None or mib >= ENOUGH_ADDRESS_SPACE_MIB:
        return Finding("address-space", Status.OK, _limit_text(mib, "MiB allowed"))
    advice = "guest memory may not fit; lift the limit: 'ulimit -v unlimited'"
    return Finding("address-space", Status.WARNING, _limit_text(mib, "MiB allowed"), advice)


def _unicorn(host: Host) -> Finding:
    version = host.unicorn_version()
    if version is None:
        value = f"not installed: guests run on KVM only ({ADVICE} for emulated ones)"
        return Finding("unicorn", Status.INFO, value)
    value = f"{version}: guests also run without KVM, emulated (--hypervisor unicorn)"
    return Finding("unicorn", Status.INFO, value)


def _limit_text(limit: int | None, unit: str) -> str:
    return "unlimited" if limit is None else f"{limit} {unit}"
