"""Looks at KVM, step by step; a step that fails ends the looking, for the rest needs it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmshim.doctor.host import Host, Kvm, Node, error_name
from kvmshim.doctor.report import Finding, Measurements, Status
from kvmshim.errors import KvmError, KvmshimError

if TYPE_CHECKING:
    from kvmshim.abi import Capability
    from kvmshim.doctor.surroundings import HostFacts

DEVICE = "/dev/kvm"
#: The misc device number that the kernel keeps for it (Documentation/admin-guide/devices.txt).
DEVICE_NUMBER = (10, 232)
#: The one version there is, since Linux 2.6.22 (api.rst, KVM_GET_API_VERSION).
API_VERSION = 12

UDEV_RULE = 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"'
_UDEV_ADVICE = (
    f"put the udev rule {UDEV_RULE} into /etc/udev/rules.d/99-kvm.rules, then run "
    "'sudo udevadm control --reload-rules && sudo udevadm trigger --name-match=kvm'"
)
_NATIVE_ADVICE = (
    "install kvmshim again with pip, or in a source tree run 'python native/ffi_build.py'"
)
_FILES_ADVICE = "too many files are open; raise the limit with 'ulimit -n'"
_GROUP_MAY_USE = 0o060
_ALL_MAY_USE = 0o006


class KvmExamination:
    """Looks at one host's KVM. ``measurements`` is set once guests have run."""

    def __init__(self, host: Host, around: HostFacts) -> None:
        self._host = host
        self._around = around
        self.measurements: Measurements | None = None

    def findings(self) -> Iterator[Finding]:
        """One finding per thing looked at, as far as the looking gets."""
        try:
            self._host.load_native()
        except ImportError as error:
            yield _missing("native-module", str(error), _NATIVE_ADVICE)
            return
        yield Finding("native-module", Status.OK, "loaded")
        node = self._node()
        yield self._device(node)
        try:
            kvm = self._host.open_kvm()
        except OSError as error:
            yield _missing("kvm-open", error_name(error), self._opening_advice(error, node))
            return
        yield Finding("kvm-open", Status.OK, "opened for reading and writing")
        with contextlib.closing(kvm):
            yield from self._opened(kvm)

    # -- the device node ----------------------------------------------------------------------

    def _node(self) -> Node | OSError:
        try:
            return self._host.node(DEVICE)
        except OSError as error:
            return error

    def _device(self, node: Node | OSError) -> Finding:
        if isinstance(node, OSError):
            return _missing("kvm-device", error_name(node), self._absence_advice())
        if node.device is None or node.kind != "character device":
            advice = f"remove it; {self._around.switch_on()}"
            return _missing("kvm-device", f"a {node.kind}, not a character device", advice)
        major, minor = node.device
        if node.device != DEVICE_NUMBER:
            advice = f"remove it and make the right one: 'sudo mknod {DEVICE} c 10 232'"
            return _missing("kvm-device", f"device {major}:{minor}, which is not KVM", advice)
        value = f"{node.kind} {major}:{minor}, {node.owner}:{node.group}, mode {node.mode:04o}"
        return Finding("kvm-device", Status.OK, value)

    def _absence_advice(self) -> str:
        loaded = any(name != "kvm" for name in self._around.modules)
        if loaded and not self._around.in_container:
            return f"KVM is loaded but has no node: 'sudo mknod {DEVICE} c 10 232'"
        return self._around.switch_on()

    def _opening_advice(self, error: OSError, node: Node | OSError) -> str:
        if error.errno == errno.EACCES and isinstance(node, Node):
            return self._permission_advice(node)
        if error.errno == errno.EPERM:
            return (
                "this container or sandbox forbids the device: pass it in with --device /dev/kvm, "
                "or allow c 10:232 in its device rules"
            )
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return _FILES_ADVICE
        return self._absence_advice()

    def _permission_advice(self, node: Node) -> str:
        if self._around.in_container:
            return (
                f"give it mode 0666 on the container's host (udev rule {UDEV_RULE}), or start the "
                "container with --device /dev/kvm and --group-add with a group that may use it"
            )
        if node.mode & _ALL_MAY_USE == _ALL_MAY_USE:
            return "its mode allows it, so a security policy (SELinux, AppArmor) or an ACL forbids"
        if node.mode & _GROUP_MAY_USE == _GROUP_MAY_USE and node.group != "root":
            return f"run 'sudo usermod -aG {node.group} \"$USER\"' and log in again"
        return _UDEV_ADVICE

    # -- the open device ----------------------------------------------------------------------

    def _opened(self, kvm: Kvm) -> Iterator[Finding]:
        version = _api_version(kvm)
        yield version
        if version.status is not Status.OK:
            return
        from kvmshim.abi import CAPABILITIES

        lacking = False
        for capability in CAPABILITIES:
            finding = _capability(kvm, capability)
            lacking = lacking or finding.status is Status.MISSING
            yield finding
        if not lacking:
            yield from self._guest(kvm)

    def _guest(self, kvm: Kvm) -> Iterator[Finding]:
        try:
            measured = self.measurements = kvm.measure()
        except KvmshimError as error:
            yield _missing("guest", str(error), _failure_advice(error))
            return
        yield Finding("guest", Status.OK, "a real-mode guest ran")
        yield _speed(measured)
        yield Finding(
            "exit-cost",
            Status.INFO,
            f"{_microseconds(measured.exit_median_ns)} (median), "
            f"{_microseconds(measured.exit_p99_ns)} (p99) for an IN that user space answers",
        )


def _api_version(kvm: Kvm) -> Finding:
    try:
        version = kvm.api_version()
    except KvmshimError as error:
        return _missing("kvm-api-version", str(error), f"{DEVICE} is not KVM; see kvm-device")
    if version == API_VERSION:
        return Finding("kvm-api-version", Status.OK, str(version))
    value = f"{version}; {API_VERSION} is needed"
    return _missing("kvm-api-version", value, "use a kernel of 2.6.22 or later")


def _capability(kvm: Kvm, capability: Capability) -> Finding:
    lack = Status.MISSING if capability.required else Status.WARNING
    use = f"{capability.use} ({'required' if capability.required else 'optional'})"
    try:
        number = kvm.check(capability)
    except KvmshimError as error:
        return Finding(capability.name, lack, str(error), _failure_advice(error), use)
    if number:
        value = "present" if number == 1 else f"present ({number})"
        return Finding(capability.name, Status.OK, value, use=use)
    advice = f"a newer kernel may have it: {capability.use}"
    if not capability.required:
        advice = f"guests run, but do without {capability.use}; a newer kernel may have it"
    return Finding(capability.name, lack, "absent", advice, use)


def _failure_advice(error: KvmshimError) -> str:
    number = error.errno if isinstance(error, KvmError) else None
    if number == errno.EBUSY:
        return "another hypervisor (VirtualBox, VMware) holds the processor; stop its machines"
    if number in (errno.EMFILE, errno.ENFILE):
        return _FILES_ADVICE
    if number == errno.ENOMEM:
        return "the host is out of memory, or this container's limit is too low"
    if number in (errno.EPERM, errno.EACCES):
        return "a sandbox (seccomp, SELinux) forbids this system call; allow ioctl on /dev/kvm"
    return "the kernel's log may say why: 'sudo dmesg | tail'"


def _speed(measured: Measurements) -> Finding:
    rate = f"{_rate(measured.instructions_per_second)} real-mode instructions a second"
    if not measured.emulated:
        return Finding("guest-speed", Status.OK, f"{rate}: the processor runs guest code itself")
    return Finding(
        "guest-speed",
        Status.WARNING,
        f"{rate}: KVM here emulates guest code in software",
        "enough for small guests; for more use bare metal, or a virtual machine with nested "
        "virtualization and kvm_intel or kvm_amd loaded",
    )


def _rate(per_second: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if per_second >= size:
            return f"{per_second / size:.1f} {unit}"
    return f"{per_second:.0f}"


def _microseconds(ns: int) -> str:
    return f"{ns / 1000:.1f} µs"


def _missing(name: str, value: str, advice: str) -> Finding:
    return Finding(name, Status.MISSING, value, advice)
