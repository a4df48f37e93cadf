"""Hosts to show to the doctor: a good one, and whatever a test changes about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kvmshim.abi import CAPABILITIES, Capability
from kvmshim.doctor import Finding, Kvm, Limit, Measurements, Node, examine
from kvmshim.errors import KvmError, KvmshimError

NATIVE = Measurements(900e6, exit_median_ns=1200, exit_p99_ns=2500)
EMULATED = Measurements(1.9e6, exit_median_ns=7300, exit_p99_ns=12000)

GOOD_NODE = Node("character device", 0o666, "root", "kvm", (10, 232))

CPUINFO_INTEL = "vendor_id\t: GenuineIntel\nmodel name\t: Some Xeon\nflags\t\t: fpu vmx sse2"
CPUINFO_AMD_VM = "vendor_id\t: AuthenticAMD\nmodel name\t: Some EPYC\nflags\t\t: fpu hypervisor"

GOOD_FILES = {
    "/proc/cpuinfo": CPUINFO_INTEL,
    "/proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB",
    "/sys/module/kvm/parameters/halt_poll_ns": "200000",
    "/sys/module/kvm_intel/parameters/nested": "Y",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
}


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class FakeKvm:
    """An open /dev/kvm with chosen answers; ``fails`` maps a call's name to its errno."""

    version: int = 12
    absent: tuple[str, ...] = ()
    speed: Measurements = NATIVE
    fails: dict[str, int] = field(default_factory=dict)
    closed: bool = False

    def _call(self, name: str) -> None:
        if name in self.fails:
            raise KvmError(name, self.fails[name], "/dev/kvm")

    def api_version(self) -> int:
        self._call("KVM_GET_API_VERSION")
        return self.version

    def check(self, capability: Capability) -> int:
        self._call("KVM_CHECK_EXTENSION")
        assert capability in CAPABILITIES
        return 0 if capability.name in self.absent else 1

    def measure(self) -> Measurements:
        self._call("KVM_CREATE_VM")
        return self.speed

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeHost:
    """A bare-metal Intel host on which everything is right, unless changed."""

    files: dict[str, str] = field(default_factory=lambda: dict(GOOD_FILES))
    dev_kvm: Node | OSError = GOOD_NODE
    kvm: FakeKvm | OSError = field(default_factory=FakeKvm)
    native: ImportError | None = None
    server: float | KvmshimError = 0.2
    cpus: int = 8
    limits: dict[Limit, int] = field(default_factory=dict)
    machine: str = "x86_64"
    signature: str | None = None
    unicorn: str | None = None

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def names(self, folder: str) -> list[str]:
        prefix = folder + "/"
        below = (path.removeprefix(prefix) for path in self.files if path.startswith(prefix))
        return sorted({name.partition("/")[0] for name in below})

    def node(self, path: str) -> Node:
        assert path == "/dev/kvm"
        if isinstance(self.dev_kvm, OSError):
            raise self.dev_kvm
        return self.dev_kvm

    def usable_cpus(self) -> int:
        return self.cpus

    def limit(self, which: Limit) -> int | None:
        return self.limits.get(which)

    def kernel(self) -> tuple[str, str]:
        return "6.1.0", self.machine

    def hypervisor_signature(self) -> str | None:
        return self.signature

    def unicorn_version(self) -> str | None:
        return self.unicorn

    def load_native(self) -> None:
        if self.native is not None:
            raise self.native

    def open_kvm(self) -> Kvm:
        if isinstance(self.kvm, OSError):
            raise self.kvm
        return self.kvm

    def try_server(self) -> float:
        if isinstance(self.server, KvmshimError):
            raise self.server
        return self.server


def host_with(files: Mapping[str, str | None] | None = None, **changes: Any) -> FakeHost:
    """A good host with some changes; a file that is None is taken away."""
    merged = {**GOOD_FILES, **(files or {})}
    kept = {path: text for path, text in merged.items() if text is not None}
    return replace(FakeHost(files=kept), **changes)


def without_kvm(files: Mapping[str, str | None] | None = None) -> FakeHost:
    """A host with no /dev/kvm and no kvm module."""
    modules = dict.fromkeys(path for path in GOOD_FILES if path.startswith("/sys/module/"))
    absent = os_error(errno.ENOENT)
    return host_with({**modules, **(files or {})}, dev_kvm=absent, kvm=absent)


def forbidden(node: Node, files: Mapping[str, str | None] | None = None) -> FakeHost:
    """A host that has /dev/kvm but does not let this user open it."""
    return host_with(files, dev_kvm=node, kvm=os_error(errno.EACCES))


def findings_of(host: FakeHost) -> dict[str, Finding]:
    """The doctor's findings on ``host`` by name."""
    return {finding.name: finding for finding in examine(host).findings}
