"""What the doctor says about the machine around KVM."""

from __future__ import annotations

import pytest
from fakehost import CPUINFO_AMD_VM, findings_of, host_with

from kvmshim.doctor import Limit, Status, examine
from kvmshim.errors import ServerError

CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
MIB = 1 << 20


def test_bare_metal_and_a_virtual_machine_are_told_apart() -> None:
    bare = findings_of(host_with())["virtualization"]
    nested = findings_of(host_with({"/proc/cpuinfo": CPUINFO_AMD_VM}))["virtualization"]

    assert bare.value == "none: bare metal"
    assert nested.value == "nested: this host is a virtual machine (of unknown make)"


def test_a_virtual_machine_is_told_by_signature_vendor_and_product() -> None:
    files = {
        "/proc/cpuinfo": CPUINFO_AMD_VM,
        "/sys/class/dmi/id/sys_vendor": "Cloudy",
        "/sys/class/dmi/id/product_name": "c7.large",
        "/.dockerenv": "",
    }
    value = findings_of(host_with(files, signature="KVMKVMKVM"))["virtualization"].value

    assert value.endswith("(KVMKVMKVM, Cloudy, c7.large), in a container")


def test_the_kvm_modules_and_their_nested_parameter_are_listed() -> None:
    findings = findings_of(host_with({"/sys/module/kvm_intel/parameters/nested": "N"}))

    assert findings["kvm-modules"].value == "kvm, kvm_intel"
    assert findings["nested"].value.startswith("kvm_intel off")


def test_another_architecture_can_not_run_guests() -> None:
    report = examine(host_with(machine="aarch64"))

    assert report.names(Status.MISSING) == ["architecture"]


@pytest.mark.parametrize(
    ("cpus", "files", "status"),
    [
        (2, {}, Status.OK),
        (1, {}, Status.WARNING),
        (8, {"/sys/fs/cgroup/cpu.max": "max 100000"}, Status.OK),
        (8, {"/sys/fs/cgroup/cpu.max": "200000 100000"}, Status.OK),
        (8, {"/sys/fs/cgroup/cpu.max": "150000 100000"}, Status.WARNING),
        (
            8,
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            Status.WARNING,
        ),
        (
            8,
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            Status.OK,
        ),
    ],
)
def test_spinning_takes_two_processors_by_affinity_and_by_quota(
    cpus: int, files: dict[str, str | None], status: Status
) -> None:
    finding = findings_of(host_with(files, cpus=cpus))["cpus"]

    assert finding.status is status
    assert ("--wait block" in finding.advice) == (status is Status.WARNING)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("tsc", Status.OK),
        ("kvm-clock", Status.OK),
        ("hpet", Status.WARNING),
        ("acpi_pm", Status.WARNING),
        ("a-new-one", Status.INFO),
        (None, Status.INFO),
    ],
)
def test_a_clock_that_costs_a_system_call_is_a_warning(name: str | None, status: Status) -> None:
    assert findings_of(host_with({CLOCK: name}))["clocksource"].status is status


@pytest.mark.parametrize(
    ("files", "value", "status"),
    [
        ({"/proc/meminfo": "MemAvailable: 131072 kB"}, "128 MiB available", Status.OK),
        ({"/proc/meminfo": "MemAvailable: 131071 kB"}, "127 MiB available", Status.WARNING),
        ({"/sys/fs/cgroup/memory.max": str(64 * MIB)}, "64 MiB available", Status.WARNING),
        ({"/proc/meminfo": "MemAvailable: lots"}, "unknown", Status.INFO),
        ({"/proc/meminfo": None}, "unknown", Status.INFO),
    ],
)
def test_memory_is_what_kernel_and_cgroup_both_allow(
    files: dict[str, str | None], value: str, status: Status
) -> None:
    finding = findings_of(host_with(files))["memory"]

    assert (finding.value, finding.status) == (value, status)


@pytest.mark.parametrize(
    ("limit", "amount", "name", "status"),
    [
        (Limit.OPEN_FILES, 64, "open-files", Status.OK),
        (Limit.OPEN_FILES, 63, "open-files", Status.WARNING),
        (Limit.ADDRESS_SPACE_BYTES, 1024 * MIB, "address-space", Status.OK),
        (Limit.ADDRESS_SPACE_BYTES, 1024 * MIB - 1, "address-space", Status.WARNING),
    ],
)
def test_a_low_limit_is_a_warning_that_says_how_to_lift_it(
    limit: Limit, amount: int, name: str, status: Status
) -> None:
    finding = findings_of(host_with(limits={limit: amount}))[name]

    assert finding.status is status
    assert ("ulimit" in finding.advice) == (status is Status.WARNING)


def test_a_server_that_does_not_start_is_missing_with_its_reason() -> None:
    report = examine(host_with(server=ServerError("can't start the embedded device server")))

    assert report.names(Status.MISSING) == ["embedded-server"]
    assert "can't start" in next(f.value for f in report.findings if f.name == "embedded-server")


def test_a_host_that_shows_no_files_at_all_is_examined_without_an_error() -> None:
    report = examine(host_with(dict.fromkeys(host_with().files)))

    assert report.ok


def test_an_emulator_is_told_of_and_how_to_get_it() -> None:
    there = findings_of(host_with(unicorn="2.1.4"))["unicorn"]
    absent = findings_of(host_with())["unicorn"]
    assert there.value.startswith("2.1.4: guests also run without KVM, emulated")
    assert (absent.status, there.status) == (Status.INFO, Status.INFO)
    assert "pip install 'kvmshim[unicorn]'" in absent.value
