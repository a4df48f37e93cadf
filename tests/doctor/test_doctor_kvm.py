"""What the doctor says about KVM on hosts of every kind."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from fakehost import (
    CPUINFO_AMD_VM,
    EMULATED,
    GOOD_NODE,
    NATIVE,
    FakeKvm,
    findings_of,
    forbidden,
    host_with,
    os_error,
    without_kvm,
)

from kvmshim.abi import CAPABILITIES
from kvmshim.doctor import Node, Status, examine

REQUIRED = [c.name for c in CAPABILITIES if c.required]
OPTIONAL = [c.name for c in CAPABILITIES if not c.required]
IN_CONTAINER: dict[str, str | None] = {"/.dockerenv": ""}
NO_VIRTUALIZATION = "vendor_id : GenuineIntel\nflags : fpu sse2"


def test_on_a_good_host_nothing_is_missing_and_nothing_needs_advice() -> None:
    report = examine(host_with())

    assert report.ok
    assert {finding.status for finding in report.findings} == {Status.OK, Status.INFO}
    assert not any(finding.advice for finding in report.findings)
    assert report.measurements == NATIVE


def test_the_device_is_closed_after_looking() -> None:
    kvm = FakeKvm()

    examine(host_with(kvm=kvm))

    assert kvm.closed


# -- no device ------------------------------------------------------------------------------------


def test_a_missing_device_is_told_by_its_errno_and_ends_the_looking_at_kvm() -> None:
    report = examine(without_kvm())

    assert not report.ok
    assert report.measurements is None
    assert report.names(Status.MISSING) == ["kvm-device", "kvm-open"]
    assert "ENOENT" in next(f.value for f in report.findings if f.name == "kvm-device")


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        ({}, "modprobe kvm_intel"),
        ({"/proc/cpuinfo": "vendor_id : AuthenticAMD\nflags : svm"}, "modprobe kvm_amd"),
        ({"/proc/cpuinfo": CPUINFO_AMD_VM}, "kvm_amd.nested=1"),
        ({"/proc/cpuinfo": NO_VIRTUALIZATION + " hypervisor"}, "kvm_intel.nested=1"),
        ({"/proc/cpuinfo": NO_VIRTUALIZATION}, "firmware set-up"),
        ({"/proc/cpuinfo": None}, "modprobe kvm_intel or kvm_amd"),
        (IN_CONTAINER, "--device /dev/kvm"),
        ({"/sys/module/kvm_intel/parameters/nested": "Y"}, "mknod /dev/kvm c 10 232"),
    ],
)
def test_advice_on_a_missing_device_fits_the_host(
    files: dict[str, str | None], advice: str
) -> None:
    assert advice in findings_of(without_kvm(files))["kvm-device"].advice


def test_a_directory_in_the_devices_place_is_told() -> None:
    # docker run -v /dev/kvm:/dev/kvm makes one where the host has no device
    node = Node("directory", 0o755, "root", "root")
    findings = findings_of(host_with(dev_kvm=node, kvm=os_error(errno.EISDIR)))

    assert findings["kvm-device"].status is Status.MISSING
    assert findings["kvm-device"].value == "a directory, not a character device"
    assert "EISDIR" in findings["kvm-open"].value


def test_another_device_in_its_place_is_told_by_number() -> None:
    findings = findings_of(host_with(dev_kvm=replace(GOOD_NODE, device=(1, 3))))

    assert findings["kvm-device"].status is Status.MISSING
    assert findings["kvm-device"].value == "device 1:3, which is not KVM"


# -- not permitted --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "files", "advice"),
    [
        (replace(GOOD_NODE, mode=0o660), {}, 'usermod -aG kvm "$USER"'),
        (replace(GOOD_NODE, mode=0o660, group="virt"), {}, 'usermod -aG virt "$USER"'),
        (
            replace(GOOD_NODE, mode=0o600),
            {},
            'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"',
        ),
        (replace(GOOD_NODE, mode=0o660, group="root"), {}, "udevadm trigger"),
        (replace(GOOD_NODE, mode=0o660), IN_CONTAINER, "--group-add"),
        (replace(GOOD_NODE, mode=0o666), {}, "SELinux"),
    ],
)
def test_advice_on_a_forbidden_device_fits_its_mode_and_group(
    node: Node, files: dict[str, str | None], advice: str
) -> None:
    findings = findings_of(forbidden(node, files))

    assert findings["kvm-device"].status is Status.OK
    assert findings["kvm-open"].status is Status.MISSING
    assert findings["kvm-open"].value == "Permission denied (EACCES)"
    assert advice in findings["kvm-open"].advice


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EPERM, "--device /dev/kvm"),
        (errno.ENODEV, "modprobe"),
        (errno.ENXIO, "modprobe"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_other_errors_of_opening_have_their_own_advice(number: int, advice: str) -> None:
    host = without_kvm()
    host.dev_kvm, host.kvm = GOOD_NODE, os_error(number)

    opening = findings_of(host)["kvm-open"]

    assert errno.errorcode[number] in opening.value
    assert advice in opening.advice


# -- an open device that falls short --------------------------------------------------------------


def test_an_old_api_version_is_named_and_ends_the_looking() -> None:
    report = examine(host_with(kvm=FakeKvm(version=10)))

    assert report.names(Status.MISSING) == ["kvm-api-version"]
    assert "10; 12 is needed" in next(f.value for f in report.findings if f.name.endswith("sion"))
    assert not any(finding.name.startswith("KVM_CAP_") for finding in report.findings)


def test_a_device_that_does_not_answer_as_kvm_is_told_by_call_and_errno() -> None:
    kvm = FakeKvm(fails={"KVM_GET_API_VERSION": errno.ENOTTY})
    version = findings_of(host_with(kvm=kvm))["kvm-api-version"]

    assert version.status is Status.MISSING
    assert "KVM_GET_API_VERSION" in version.value
    assert "ENOTTY" in version.value
    assert kvm.closed


@pytest.mark.parametrize("name", REQUIRED)
def test_without_a_required_capability_no_guest_is_tried(name: str) -> None:
    report = examine(host_with(kvm=FakeKvm(absent=(name,))))

    assert report.names(Status.MISSING) == [name]
    assert report.measurements is None


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_absent_optional_capability_is_a_warning_and_guests_run(name: str) -> None:
    report = examine(host_with(kvm=FakeKvm(absent=(name,))))

    assert report.ok
    assert report.names(Status.WARNING) == [name]
    assert report.measurements is not None


def test_every_capability_says_what_it_is_for_and_whether_it_is_required() -> None:
    findings = findings_of(host_with())

    for capability in CAPABILITIES:
        need = "required" if capability.required else "optional"
        assert findings[capability.name].use == f"{capability.use} ({need})"


def test_a_capability_that_can_not_be_asked_for_counts_as_absent() -> None:
    report = examine(host_with(kvm=FakeKvm(fails={"KVM_CHECK_EXTENSION": errno.EPERM})))

    assert report.names(Status.MISSING) == REQUIRED
    assert report.names(Status.WARNING) == OPTIONAL
    assert all("seccomp" in f.advice for f in report.findings if f.name in REQUIRED)


# -- guests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EBUSY, "another hypervisor"),
        (errno.ENOMEM, "memory"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EINVAL, "dmesg"),
    ],
)
def test_a_guest_that_can_not_run_is_told_by_call_errno_and_advice(
    number: int, advice: str
) -> None:
    report = examine(host_with(kvm=FakeKvm(fails={"KVM_CREATE_VM": number})))
    guest = next(finding for finding in report.findings if finding.name == "guest")

    assert report.names(Status.MISSING) == ["guest"]
    assert "KVM_CREATE_VM" in guest.value
    assert errno.errorcode[number] in guest.value
    assert advice in guest.advice


def test_a_host_whose_kvm_emulates_guest_code_is_told_so_with_the_number() -> None:
    speed = findings_of(host_with(kvm=FakeKvm(speed=EMULATED)))["guest-speed"]

    assert speed.status is Status.WARNING
    assert speed.value.startswith("1.9 M real-mode instructions a second")
    assert "emulates" in speed.value


def test_a_host_whose_processor_runs_guest_code_is_told_so_with_the_number() -> None:
    speed = findings_of(host_with())["guest-speed"]

    assert speed.status is Status.OK
    assert speed.value.startswith("900.0 M real-mode instructions a second")


def test_the_cost_of_an_exit_is_told_in_microseconds() -> None:
    cost = findings_of(host_with(kvm=FakeKvm(speed=EMULATED)))["exit-cost"]

    assert cost.value.startswith("7.3 µs (median), 12.0 µs (p99)")


def test_without_the_native_module_nothing_of_kvm_or_the_server_is_tried() -> None:
    report = examine(host_with(native=ImportError("No module named 'kvmshim._native'")))

    names = [finding.name for finding in report.findings]
    assert report.names(Status.MISSING) == ["native-module"]
    assert "kvm-open" not in names
    assert "embedded-server" not in names
    assert "kernel" in names
