"""The doctor on file trees made for it, and on the host that the tests run on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvmshim.doctor import Status, ThisHost, examine
from kvmshim.doctor.report import Report
from kvmshim.errors import HostError, KvmError

ROOT = Path(__file__).resolve().parents[2]


def status_of(report: Report, name: str) -> Status:
    return next(finding.status for finding in report.findings if finding.name == name)


def test_an_empty_tree_has_no_kvm(tmp_path: Path) -> None:
    report = examine(ThisHost(tmp_path))

    assert report.names(Status.MISSING) == ["kvm-device", "kvm-open"]
    assert status_of(report, "embedded-server") is Status.OK


def test_a_regular_file_in_the_devices_place_is_no_kvm(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").write_bytes(b"")
    host = ThisHost(tmp_path)

    assert host.node("/dev/kvm").kind == "regular file"
    with pytest.raises(KvmError, match=r"KVM_GET_API_VERSION .* \(ENOTTY\)"):
        host.open_kvm().api_version()


def test_opening_a_directory_fails_with_its_errno(tmp_path: Path) -> None:
    (tmp_path / "dev/kvm").mkdir(parents=True)

    with pytest.raises(OSError, match="Is a directory") as caught:
        ThisHost(tmp_path).open_kvm()
    assert caught.value.errno == errno.EISDIR


def test_nodes_are_told_by_kind_mode_owner_and_number() -> None:
    null = ThisHost().node("/dev/null")

    assert (null.kind, null.device) == ("character device", (1, 3))
    assert null.mode == os.stat("/dev/null").st_mode & 0o7777
    assert null.owner


def test_files_are_read_below_the_root_and_absent_ones_are_none(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/here").write_text("text\n")
    host = ThisHost(tmp_path)

    assert host.read("/proc/here") == "text"
    assert host.read("/proc/not-here") is None
    assert host.names("/proc") == ["here"]
    assert host.names("/sys") == []


def test_the_hypervisor_signature_is_read_from_ebx_ecx_and_edx(tmp_path: Path) -> None:
    cpuid = tmp_path / "dev/cpu/0/cpuid"
    cpuid.parent.mkdir(parents=True)
    with cpuid.open("wb") as file:  # a sparse file: leaves are offsets
        file.seek(0x4000_0000)
        file.write(b"\x01\x00\x00\x40" + b"KVMKVMKVM\0\0\0")

    assert ThisHost(tmp_path).hypervisor_signature() == "KVMKVMKVM"
    assert ThisHost(tmp_path / "dev").hypervisor_signature() is None


def test_a_server_that_crashes_is_told_by_its_last_words_and_shows_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import kvmshim.remote.link  # noqa: F401  (with the true devserver, before the broken one hides it)

    (tmp_path / "devserver").mkdir()
    (tmp_path / "devserver/__init__.py").write_text("raise RuntimeError('out of order')\n")
    monkeypatch.chdir(tmp_path)  # which python -m looks into first

    with pytest.raises(HostError, match="fails: RuntimeError: out of order"):
        ThisHost().try_server()
    assert capfd.readouterr().err == ""


@pytest.mark.kvm
def test_a_real_guest_runs_and_is_measured() -> None:
    report = examine(ThisHost())
    measured = report.measurements

    assert report.ok
    assert measured is not None
    assert 100_000 < measured.instructions_per_second < 20e9
    assert 100 < measured.exit_median_ns <= measured.exit_p99_ns


@pytest.mark.kvm
def test_the_command_prints_json_and_ends_with_0() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kvmshim", "doctor", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"] is True
